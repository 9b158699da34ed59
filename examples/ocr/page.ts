/** The page that the demo leaves behind: each line as a picture, with what every model read. */
import { writeFileSync } from 'node:fs';
import { diffChars } from 'diff';
import { renderLine, type TextLine } from './render.js';

export interface Contestant {
  name: string;
  /** Median time of one line, milliseconds. */
  milliseconds: number;
  errorRate: number;
  /** One reading a line. */
  readings: readonly string[];
}

const escape = (text: string): string =>
  text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]!);

const STYLE = `
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430; background: #f7f8fa }
  h1 { font-size: 1.5rem } table { border-collapse: collapse; width: 100%; background: #fff }
  th, td { text-align: left; padding: .4rem .8rem; border-bottom: 1px solid #e3e7ee } td.number { font-variant-numeric: tabular-nums }
  section { background: #fff; padding: 1rem; margin: 1rem 0; border-radius: .5rem; box-shadow: 0 1px 3px #0002 }
  img { max-width: 100%; height: auto } dt { color: #5a6675; font-size: .85rem } dd { margin: 0 0 .4rem; white-space: pre-wrap; font-family: ui-monospace, monospace }
  mark { background: #ffd9d4 } del { color: #b3261e }`;

/** A reading with what it adds to the truth marked and what it misses struck out. */
function marked(reading: string, truth: string): string {
  return diffChars(truth, reading)
    .map(({ value, added, removed }) => {
      if (added) return `<mark>${escape(value)}</mark>`;
      return removed ? `<del>${escape(value)}</del>` : escape(value);
    })
    .join('');
}

/** Writes a self-contained HTML page. */
export function writePage(
  file: string,
  lines: readonly TextLine[],
  contestants: readonly Contestant[],
): void {
  const rows = contestants.map(
    ({ name, milliseconds, errorRate }) =>
      `<tr><td>${escape(name)}</td><td class="number">${(100 * errorRate).toFixed(1)} %</td>` +
      `<td class="number">${milliseconds.toFixed(1)} ms</td></tr>`,
  );
  const sections = lines.map((line, i) => {
    const picture = renderLine(line).toDataURL('image/png');
    const readings = contestants.map(
      ({ name, readings }) => `<dt>${escape(name)}</dt><dd>${marked(readings[i]!, line.text)}</dd>`,
    );
    return `<section><img src="${picture}" alt="${escape(line.text)}"><dl>${readings.join('')}</dl></section>`;
  });
  writeFileSync(
    file,
    `<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>What each model reads</title><style>${STYLE}</style>
<h1>What each model reads</h1>
<table><tr><th>model</th><th>character error rate</th><th>time a line (median)</th></tr>${rows.join('')}</table>
${sections.join('\n')}</html>\n`,
  );
}
