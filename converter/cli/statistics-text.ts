/** What `inspect --stats` prints: measured scores of every head. */
import type { SiteStatistics } from '../calibrate/faithful.js';
import { shortened } from './inspect-text.js';
import { short, table } from './table.js';

export function statisticsText(samples: string, sites: readonly SiteStatistics[]): string {
  const rows = sites.flatMap(({ site, heads }) =>
    heads.map((head, index) => [
      index === 0 ? shortened(site) : '',
      String(index),
      short(head.largestScore),
      short(head.softmaxNorm),
      short(head.sigmoidNorm),
      short(head.entropy),
      `${short(100 * head.saturation)} %`,
      `${short(head.logSumExp.mean)} ± ${short(head.logSumExp.deviation)}`,
    ]),
  );
  const header = [
    'site',
    'head',
    'largest score',
    '|softmax V|',
    '|sigmoid V|',
    'entropy',
    'saturated',
    'log sum exp - log n',
  ];
  return (
    `Measured on ${samples}:\n${table(header, rows, [1, 2, 3, 4, 5, 6, 7])}\n\n` +
    'sigmoid is taken with b = -log n. Entropy is relative to log n. A head whose log sum exp varies little over rows is\n' +
    'one that a single bias converts well; where it varies much, keep the site faithful or train.'
  );
}
