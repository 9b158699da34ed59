/** What the page shows: the table of sites, and the bars and numbers of a comparison. */

import type { Inspection } from '../../../converter/site.js';
import type { Comparison, Which } from './comparison.js';

type Child = Node | string;

/** An element with attributes and children. */
export function element(
  tag: string,
  attributes: Record<string, string> = {},
  ...children: Child[]
): HTMLElement {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

/** The attention sites of a model, one row each. */
export function sitesTable({ sites }: Inspection): HTMLElement {
  // The roles are said because small screens lay the rows out as blocks, which would lose them.
  const cell = (label: string, text: string, kind = ''): HTMLElement =>
    element('td', { role: 'cell', 'data-label': label, class: kind }, text);
  const rows = sites.map((site) =>
    element(
      'tr',
      { role: 'row' },
      cell('Site', site.name, 'name'),
      cell('Kind', site.kind),
      cell('Heads × size', `${site.heads ?? '?'} × ${site.headSize ?? '?'}`),
      cell('Mask', site.maskText),
      cell('Can be converted', site.replaceable ? 'yes' : `no: ${site.reasonDetail || site.reason || ''}`),
    ),
  );
  const head = ['Site', 'Kind', 'Heads × size', 'Mask', 'Can be converted'];
  const header = head.map((text) => element('th', { scope: 'col', role: 'columnheader' }, text));
  const table = element(
    'table',
    { role: 'table' },
    element('caption', {}, `${sites.length} attention site${sites.length === 1 ? '' : 's'}`),
    element('thead', { role: 'rowgroup' }, element('tr', { role: 'row' }, ...header)),
    element('tbody', { role: 'rowgroup' }, ...rows),
  );
  return element(
    'div',
    { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Attention sites' },
    table,
  );
}

/** Latency, memory and difference. */
export function comparisonReport(result: Comparison): HTMLElement {
  const { milliseconds, gpuBytes, difference, largest, runs } = result;
  const speed = milliseconds.original / milliseconds.converted;
  const verdict =
    speed >= 1
      ? `The converted model is ${speed.toFixed(2)} times as fast.`
      : `The converted model takes ${(1 / speed).toFixed(2)} times as long.`;
  const parts = [
    element('h3', {}, 'Time of a run'),
    bars(milliseconds, (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`),
    element(
      'p',
      { class: 'note' },
      `${verdict} Middle of ${runs} runs each, after four that do not count; results read back.`,
    ),
  ];
  if (gpuBytes !== undefined)
    parts.push(
      element('h3', {}, 'Memory in GPU buffers'),
      bars(gpuBytes, (value) => `${(value / 2 ** 20).toFixed(1)} MB`),
      element('p', { class: 'note' }, 'Most at one time, weights included.'),
    );
  parts.push(
    element('h3', {}, 'Difference of the outputs'),
    element(
      'p',
      {},
      `At most ${difference.toExponential(1)}, where the largest output is ${largest.toPrecision(3)} in size.`,
    ),
  );
  return element('div', {}, ...parts);
}

function bars(values: Readonly<Record<Which, number>>, text: (value: number) => string): HTMLElement {
  const most = Math.max(values.original, values.converted, Number.MIN_VALUE);
  const row = (which: Which): HTMLElement =>
    element(
      'div',
      { class: `bar ${which}` },
      element('span', {}, which === 'original' ? 'Original' : 'Converted'),
      element(
        'div',
        { class: 'track', 'aria-hidden': 'true' },
        element('div', { class: 'fill', style: `width: ${((100 * values[which]) / most).toFixed(1)}%` }),
      ),
      element('output', {}, text(values[which])),
    );
  return element('div', { class: 'bars' }, row('original'), row('converted'));
}
