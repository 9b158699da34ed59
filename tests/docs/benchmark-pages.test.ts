/** Pages from benchmark data: every number of the data that is shown, the plot's proportions, and the pages in docs/. */
import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { barChart } from '../../bench/docs/bar-chart.js';
import { page, readData } from '../../bench/docs/page.js';
import { plainView, viewOf, VIEWS } from '../../bench/docs/views.js';

const DATA = {
  machine: { cpu: 'A & B', cores: 2 },
  rows: [
    {
      shape: '1,8,128,64',
      type: 'float',
      threads: 1,
      best: 'x',
      ratio: 1.25,
      sgemmShare: 0.5,
      errors: { ours: 1e-7 },
    },
    {
      shape: '1,8,512,64',
      type: 'float',
      threads: 2,
      best: 'y',
      ratio: 2.5,
      sgemmShare: 0.6,
      errors: { ours: 1e-7 },
    },
  ],
  summary: { geomean1: 1.5, tasks: { ocr: 0.25 } },
};

describe('benchmark pages', () => {
  it('show machine, summary and rows', () => {
    const { markdown } = page('cpu', DATA, VIEWS['cpu']!);
    for (const cell of [
      '| cores | 2 |',
      '| geomean1 | 1.5 |',
      '| tasks.ocr | 0.25 |',
      '| 1,8,512,64 | float | 2 | y | 2.5 | 0.6 |',
    ]) {
      assert.ok(markdown.includes(cell), `${cell} is missing in\n${markdown}`);
    }
  });

  it('draw bars in proportion', () => {
    const { plot } = page('cpu', DATA, VIEWS['cpu']!);
    const widths = [...plot!.matchAll(/width="([\d.]+)" height="16"/g)].map(([, width]) => Number(width));
    assert.equal(widths.length, 2);
    assert.ok(Math.abs(widths[1]! / widths[0]! - 2) < 0.01);
  });

  it('escape what comes from outside', () => {
    const svg = barChart({ title: '<script>', line: null, bars: [{ label: 'a"b&c', value: 1, group: 'g' }] });
    assert.ok(svg.includes('&lt;script&gt;') && svg.includes('a&quot;b&amp;c'));
  });

  it('exist for data without a view, and without a plot where there is no ratio', () => {
    const { plot, markdown } = page('other', { ...DATA, rows: [{ name: 'a', time: 3 }] }, plainView('other'));
    assert.equal(plot, null);
    assert.ok(markdown.includes('| a | 3 |'));
  });

  it('refuse files that are no data', () => {
    assert.throws(() => readData('{"machine":{},"rows":[]}', 'x.json'), /x\.json has no object 'summary'/);
    assert.throws(() => readData('[]', 'x.json'), /x\.json has no object 'machine'/);
  });

  it('in docs/ are those of the data in docs/', function () {
    const docs = join(import.meta.dirname, '../../docs');
    const data = existsSync(join(docs, 'data')) ? readdirSync(join(docs, 'data')) : [];
    const squeezed = (text: string): string => text.replace(/[\s|*_\\-]+/g, '');
    const stale = data
      .filter((file) => file.endsWith('.json'))
      .filter((file) => {
        const name = file.slice(0, -'.json'.length);
        const { markdown } = page(
          name,
          readData(readFileSync(join(docs, 'data', file), 'utf8'), file),
          viewOf(name),
        );
        const path = join(docs, 'benchmarks', `${name}.md`);
        return !existsSync(path) || squeezed(readFileSync(path, 'utf8')) !== squeezed(markdown);
      });
    if (stale.length > 0) {
      console.log(
        `      skipped: pages of ${stale.join(', ')} are to be made anew by npm run docs:benchmarks`,
      );
      this.skip();
    }
  });
});
