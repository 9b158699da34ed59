/** One self-contained HTML page about a model or a conversion, for a person who wants to know what was done and why. */
import type { Plan } from '../calibrate/plan.js';
import type { Mode, Replacement } from '../conversion.js';
import { REASONS } from '../reasons.js';
import type { Inspection, Site } from '../site.js';
import type { Verification } from '../verify/verification.js';
import { calibrationBars, errorPlot, parameterPlots } from './charts.js';
import { depthStrip, type Outcome, type PlacedSite } from './depth-strip.js';
import { escaped, number, percent } from './html.js';
import type { ReportInput } from './report-input.js';
import { siteSections } from './site-sections.js';
import { statisticsTable } from './statistics-table.js';
import { STYLE } from './style.js';
import { tradeCurve } from './trade-curve.js';

/** The page as HTML text. */
export function reportPage(input: ReportInput): string {
  const { file, inspection, result } = input;
  const placed = placedSites(inspection, result?.conversion.replaced ?? null, result?.mode ?? null);
  const title = result
    ? `${file}: softmax to sigmoid attention, mode ${result.mode}`
    : `Attention in ${file}`;
  const statistics = input.statistics ?? result?.plan.statistics ?? [];
  const body = [
    `<h1>${escaped(result ? `${file} → ${result.output}` : file)}</h1>`,
    `<p class="lead">${escaped(origin(inspection, result?.mode))}</p>`,
    result ? verdictCard(result.verification, result.unverified) : '',
    figures(placed, result?.verification ?? null, result?.metric ?? null),
    placed.length > 0 ? section('Along the depth of the model', depthCard(placed)) : '',
    result?.verification && result.verification.sites.length > 0
      ? verificationSection(result.verification)
      : '',
    result?.verification ? outputsSection(result.verification) : '',
    result?.plan.calibration ? calibrationSection(result.plan) : '',
    statistics.length > 0 ? section('What the scores look like', statisticsTable(statistics)) : '',
    notes([...(result?.plan.notes ?? []), ...(result?.verification?.notes ?? [])]),
    placed.length > 0 ? section('Sites', siteSections(input, placed)) : '',
    passedOver(inspection),
    '<footer>Written by sigmoid-attention. Differences are relative to the largest value of the tensor unless they say otherwise.</footer>',
  ];
  return (
    '<!doctype html><html lang="en"><meta charset="utf-8">' +
    '<meta name="viewport" content="width=device-width,initial-scale=1">' +
    `<title>${escaped(title)}</title><style>${STYLE}</style><main>${body.join('')}</main></html>\n`
  );
}

function placedSites(
  inspection: Inspection,
  replaced: readonly Replacement[] | null,
  mode: Mode | null,
): PlacedSite[] {
  const found = replaced && new Map(replaced.map((own) => [own.site.name, own]));
  const outcome = (site: Site): Outcome => {
    if (!site.replaceable) return 'refused';
    const own = found?.get(site.name);
    if (found && !own) return 'kept';
    const isFaithful = mode === 'calibrated' && own?.attributes['normalize'] === 1;
    return isFaithful && site.kind !== 'sigmoid' ? 'faithful' : 'replaced';
  };
  return inspection.sites.map((site, index) => ({
    site,
    outcome: outcome(site),
    anchor: `site-${index + 1}`,
  }));
}

function origin({ producer, opsets, nodeCount }: Inspection, mode: Mode | undefined): string {
  const opset = opsets[''] ?? opsets['ai.onnx'];
  const parts = [
    producer || 'unknown producer',
    opset === undefined ? '' : `opset ${opset}`,
    `${nodeCount} nodes`,
  ];
  if (mode) parts.push(`mode ${mode}`);
  return parts.filter((part) => part !== '').join(' · ');
}

const section = (title: string, content: string): string => `<h2>${title}</h2>${content}`;

function verdictCard(verification: Verification | null, unverified: string | null): string {
  if (!verification) {
    return `<div class="card verdict"><strong>Not verified</strong>${escaped(unverified ?? '')}</div>`;
  }
  const { passed, verdict, operator, samples } = verification;
  return (
    `<div class="card verdict ${passed ? 'pass' : 'fail'}"><strong>${passed ? 'Verified' : 'Failed'}</strong>` +
    `${escaped(verdict.slice(0, 1).toUpperCase() + verdict.slice(1))}.<p class="lead">Operator run as ${escaped(operator)}; inputs: ${escaped(samples)}.</p></div>`
  );
}

function figures(
  placed: readonly PlacedSite[],
  verification: Verification | null,
  metric: NonNullable<ReportInput['result']>['metric'],
): string {
  const count = (outcome: Outcome): number => placed.filter((site) => site.outcome === outcome).length;
  const cells: [string, string][] = [
    [String(placed.length), 'attention sites'],
    [String(count('replaced') + count('faithful')), verification ? 'replaced' : 'can be replaced'],
    [String(count('refused')), 'refused'],
  ];
  if (count('faithful') > 0) cells.push([String(count('faithful')), 'of them kept faithful to softmax']);
  if (count('kept') > 0) cells.push([String(count('kept')), 'left as they are']);
  if (verification && verification.drift.length > 0) {
    const largest = (of: (distance: Verification['drift'][number]) => number): number =>
      Math.max(...verification.drift.map(of));
    cells.push(
      verification.structure.length > 0
        ? [percent(largest(({ relative }) => relative)), 'relative L2 distance of the outputs from softmax']
        : [number(largest(({ maxRelative }) => maxRelative)), 'largest relative difference of an output'],
    );
  }
  if (metric) {
    cells.push([
      `${number(metric.original)} → ${number(metric.converted)}`,
      `${escaped(metric.name)}, original and converted`,
    ]);
  }
  const boxes = cells.map(([value, text]) => `<div class="figure"><b>${value}</b><span>${text}</span></div>`);
  return `<div class="figures">${boxes.join('')}</div>`;
}

function depthCard(placed: readonly PlacedSite[]): string {
  const outcomes = [...new Set(placed.map(({ outcome }) => outcome))];
  const key = outcomes.map((outcome) => `<span><i class="${outcome}"></i>${outcome}</span>`).join('');
  return `<div class="card"><p class="key">${key}</p><div class="scroll wide">${depthStrip(placed)}</div></div>`;
}

function verificationSection(verification: Verification): string {
  const structure = verification.sites.some((site) => site.structure);
  const key =
    '<span><i class="drift"></i>from the original</span>' +
    (structure
      ? '<span><i class="structure"></i>from the original with sigmoid in place of softmax</span>'
      : '');
  return section(
    'Difference at each replaced site',
    `<div class="card"><p class="key">${key}</p><div class="scroll wide">${errorPlot(verification)}</div></div>`,
  );
}

function outputsSection({ drift, structure }: Verification): string {
  const exchanged = new Map(structure.map((distance) => [distance.name, distance]));
  const rows = drift.map(
    ({ name, maxAbs, maxRelative, relative, cosine }) =>
      `<tr><td class="name"><code>${escaped(name)}</code></td><td class="num">${number(maxAbs)}</td>` +
      `<td class="num">${number(maxRelative)}</td><td class="num">${number(relative)}</td><td class="num">${cosine.toFixed(6)}</td>` +
      (structure.length > 0
        ? `<td class="num">${number(exchanged.get(name)?.maxRelative ?? NaN)}</td>`
        : '') +
      '</tr>',
  );
  const head =
    '<tr><th>output</th><th class="num">largest difference</th><th class="num">relative</th>' +
    '<th class="num">relative L2</th><th class="num">cosine</th>' +
    (structure.length > 0 ? '<th class="num">structure</th>' : '') +
    '</tr>';
  return section(
    'Outputs of the model',
    `<div class="card scroll"><table>${head}${rows.join('')}</table></div>`,
  );
}

const FORMS =
  '<b>plain</b>: bias, temperature and gain of each head. <b>shifted</b>: also constants on keys, values and output. ' +
  '<b>centred</b>: also means of scores and values. <b>spread</b>: also variance and deviation of the scores. ' +
  'The simplest form that does well on rows held back from fitting is taken.';

function calibrationSection({ calibration }: Plan): string {
  const { samples, sites, choice } = calibration!;
  return section(
    'Calibration',
    `<div class="card"><p>Each site was fitted to the output of softmax attention on ${escaped(samples)}. ` +
      `A bar is the error of its attention output. ${FORMS}</p>` +
      '<p class="key"><span><i class="paper"></i>sigmoid with b = −log n</span><span><i class="fitted"></i>fitted</span></p>' +
      `<div class="scroll wide">${calibrationBars(sites)}</div></div>` +
      (sites.some(({ kept }) => !kept) ? `<div class="card plots">${parameterPlots(sites)}</div>` : '') +
      (choice
        ? `<div class="card"><p><code>--keep auto</code> kept ${choice.keep} of ${sites.length} sites faithful: ${escaped(choice.label)} for each number tried.</p>` +
          `<div class="scroll wide">${tradeCurve(choice, sites.length)}</div></div>`
        : keepTable(sites)),
  );
}

/** What `--keep` would leave, for a reader who has to choose a number. */
function keepTable(sites: NonNullable<Plan['calibration']>['sites']): string {
  const sorted = [...sites].sort((a, b) => b.error - a.error);
  const rows = sorted.slice(0, 8).map(({ site, error, kept }, index) => {
    const next = sorted[index + 1];
    return (
      `<tr><td class="num">${index + 1}</td><td class="name"><code>${escaped(site)}</code>${kept ? ' (kept)' : ''}</td>` +
      `<td class="num">${percent(error)}</td><td class="num">${next ? percent(next.error) : '0 %'}</td></tr>`
    );
  });
  return (
    '<div class="card scroll"><p>What <code>--keep</code> trades: sites left faithful, worst first, and the largest error that then remains.</p>' +
    '<table><tr><th class="num">keep</th><th>adds</th><th class="num">its error</th><th class="num">largest error left</th></tr>' +
    `${rows.join('')}</table></div>`
  );
}

function notes(lines: readonly string[]): string {
  if (lines.length === 0) return '';
  return section('Notes', `<ul>${lines.map((line) => `<li>${escaped(line)}.</li>`).join('')}</ul>`);
}

function passedOver({ passedOver: nodes }: Inspection): string {
  if (nodes.length === 0) return '';
  const rows = nodes
    .slice(0, 60)
    .map(
      ({ node, opType, reason }) =>
        `<tr><td class="name"><code>${escaped(node)}</code></td><td>${escaped(opType)}</td><td class="why">${escaped(REASONS[reason])}</td></tr>`,
    );
  const more = nodes.length > 60 ? `<p>and ${nodes.length - 60} more</p>` : '';
  return section(
    'Passed over: no attention',
    `<div class="card scroll"><table><tr><th>node</th><th>operator</th><th>why</th></tr>${rows.join('')}</table>${more}</div>`,
  );
}
