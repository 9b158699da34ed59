/** Measured scores of each site as a table: what decides whether one bias a head can stand in for softmax's sum. */
import type { SiteStatistics } from '../calibrate/faithful.js';
import { escaped, number } from './html.js';

export function statisticsTable(statistics: readonly SiteStatistics[]): string {
  const rows = statistics.map(({ site, heads }, index) => {
    const mean = (pick: (head: (typeof heads)[number]) => number): number =>
      heads.reduce((sum, head) => sum + pick(head), 0) / Math.max(1, heads.length);
    const cells = [
      number(Math.max(...heads.map(({ largestScore }) => largestScore))),
      number(mean(({ softmaxNorm }) => softmaxNorm)),
      number(mean(({ sigmoidNorm }) => sigmoidNorm)),
      number(mean(({ entropy }) => entropy)),
      `${number(100 * mean(({ saturation }) => saturation))} %`,
      number(Math.max(...heads.map(({ logSumExp }) => logSumExp.deviation))),
    ];
    return (
      `<tr><td class="num">${index + 1}</td><td class="name"><code>${escaped(site)}</code></td>` +
      `${cells.map((cell) => `<td class="num">${cell}</td>`).join('')}</tr>`
    );
  });
  const titles = ['largest score', '|softmax V|', '|sigmoid V|', 'entropy', 'saturated', 'spread of log sum'];
  return (
    '<div class="card"><p>Entropy is relative to its largest value: 1 is uniform, 0 a single key. The spread is the standard deviation over rows of ' +
    'the logarithm of softmax’s sum, of the head where it is largest: where it is small, one bias a head does what the sum did.</p>' +
    `<div class="scroll"><table><tr><th class="num">#</th><th>site</th>${titles.map((title) => `<th class="num">${title}</th>`).join('')}</tr>` +
    `${rows.join('')}</table></div></div>`
  );
}
