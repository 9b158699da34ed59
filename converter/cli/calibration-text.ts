/** What `convert` prints about fitted parameters. */
import type { SiteFit } from '../calibrate/fit-site.js';
import { shortened } from './inspect-text.js';
import { short, table } from './table.js';

export function calibrationText(samples: string, sites: readonly SiteFit[]): string {
  if (sites.length === 0) return '';
  const rows = sites.map(({ site, heads, error, paperError, kept }) => [
    shortened(site),
    percent(paperError),
    percent(error),
    kept ? 'faithful' : range(heads.map(({ bias }) => bias)),
    kept ? '' : range(heads.map(({ scale }) => scale)),
    kept ? '' : range(heads.map(({ gain }) => gain)),
  ]);
  const header = ['site', 'error at -log n', 'fitted', 'bias', 'temperature', 'gain'];
  return `Fitted to softmax's output on ${samples}:\n${table(header, rows, [1, 2])}`;
}

const percent = (value: number): string => `${short(100 * value)} %`;

function range(values: readonly number[]): string {
  const low = short(Math.min(...values));
  const high = short(Math.max(...values));
  return low === high ? low : `${low} to ${high}`;
}
