/** What `convert` prints about fitted parameters. */
import type { Replacement } from '../conversion.js';
import type { CalibrationAccount, Choice } from '../calibrate/plan.js';
import { shortened } from './inspect-text.js';
import { short, table } from './table.js';

export function calibrationText({ samples, sites, choice }: CalibrationAccount): string {
  if (sites.length === 0) return '';
  const rows = sites.map(({ site, form, heads, error, heldBackError, paperError, kept }) => [
    shortened(site),
    percent(paperError),
    percent(error),
    percent(heldBackError),
    kept ? 'faithful' : form,
    kept ? '' : range(heads.map(({ bias }) => bias)),
    kept ? '' : range(heads.map(({ scale }) => scale)),
    kept ? '' : range(heads.map(({ gain }) => gain)),
  ]);
  const header = ['site', 'error at -log n', 'fitted', 'held back', 'form', 'bias', 'temperature', 'gain'];
  const fitted = `Fitted to softmax's output on ${samples}:\n${table(header, rows, [1, 2, 3])}`;
  return choice ? `${fitted}\n\n${choiceText(choice, sites.length)}` : fitted;
}

/** Where temperatures and gains went; '' where no site has any. */
export function foldingText(replaced: readonly Replacement[]): string {
  const foldings = replaced.flatMap(({ site, foldings: own }) => own.map((entry) => ({ site, ...entry })));
  if (foldings.length === 0) return '';
  const counts = (['temperature', 'gain'] as const).map((factor) => {
    const own = foldings.filter((entry) => entry.factor === factor);
    return `${factor} of ${own.filter(({ reason }) => reason === null).length} of ${own.length} sites`;
  });
  const left = foldings
    .filter(({ reason }) => reason !== null)
    .map(
      ({ site, factor, reason }) => `  ${factor} of ${shortened(site.name)} stays an input: ${reason ?? ''}`,
    );
  return [`Folded into weights: ${counts.join(', ')}.`, ...left].join('\n');
}

function choiceText({ label, original, bound, keep, trade }: Choice, sites: number): string {
  const rows = trade.map((own) => [
    String(own.keep),
    short(own.value),
    own.within ? 'within the bound' : 'beyond the bound',
  ]);
  const origin = original === 0 ? '' : `, ${short(original)} in the original`;
  return (
    `Kept ${keep} of ${sites} sites faithful: ${label}${origin}, may move by ${short(bound)}.\n` +
    table(['kept', label, ''], rows, [0, 1])
  );
}

const percent = (value: number): string => `${short(100 * value)} %`;

function range(values: readonly number[]): string {
  const low = short(Math.min(...values));
  const high = short(Math.max(...values));
  return low === high ? low : `${low} to ${high}`;
}
