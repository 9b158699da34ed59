/**
 * Command: npm run docs:operator
 *
 * Writes the tables of docs/operator.md from op/schema.ts, between their markers; the prose around them is edited there.
 */

import { readFile, rename, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

import { format, resolveConfig } from 'prettier';

import { ATTRIBUTES, INPUTS, OUTPUTS } from '../op/schema.js';

const PAGE = fileURLToPath(new URL('operator.md', import.meta.url));

/** The page as it must be, given the page as it is. */
export async function operatorPage(current: string): Promise<string> {
  const page = Object.entries(TABLES).reduce((text, [name, rows]) => withTable(text, name, rows()), current);
  return format(page, { ...(await resolveConfig(PAGE)), parser: 'markdown' });
}

const TABLES: Readonly<Record<string, () => string[][]>> = {
  inputs: () => [
    ['', 'name', 'type', 'shape', 'meaning'],
    ...INPUTS.map(({ name, type, optional, shape, description }, index) => [
      String(index),
      `\`${name}\``,
      optional ? `${type}, optional` : type,
      shapes(shape),
      description,
    ]),
  ],
  outputs: () => [
    ['', 'name', 'type', 'shape'],
    ...OUTPUTS.map(({ name, type, optional, shape }, index) => [
      String(index),
      `\`${name}\``,
      optional ? `${type}, optional` : type,
      shapes(shape),
    ]),
  ],
  attributes: () => [
    ['name', 'type', 'default', 'meaning'],
    ...ATTRIBUTES.map(({ name, type, default: fallback, description }) => [
      `\`${name}\``,
      type,
      fallback === null ? '' : `\`${JSON.stringify(fallback)}\``,
      description,
    ]),
  ],
};

/** Puts `[...]` into code marks. */
function shapes(text: string): string {
  return text.replace(/\[[^\]]*\]/g, '`$&`');
}

function withTable(page: string, name: string, rows: string[][]): string {
  const start = `<!-- generated from op/schema.ts: ${name} -->`;
  const end = '<!-- end -->';
  const from = page.indexOf(start);
  const to = page.indexOf(end, from);
  if (from < 0 || to < 0)
    throw new Error(`docs/operator.md lacks the marker "${start}" or the "${end}" after it.`);
  const [head = [], ...body] = rows;
  const line = (cells: string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  const table = [line(head), line(head.map(() => '---')), ...body.map(line)].join('\n');
  return `${page.slice(0, from)}${start}\n\n${table}\n\n${page.slice(to)}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const partial = `${PAGE}.partial`;
  await writeFile(partial, await operatorPage(await readFile(PAGE, 'utf8')));
  await rename(partial, PAGE);
}
