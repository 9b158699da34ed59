/** What `verify` and `convert` print about a comparison. */
import type { Distance } from '../verify/compare.js';
import type { Verification } from '../verify/verification.js';
import { shortened } from './inspect-text.js';
import { short, table } from './table.js';

const distanceRow = (label: string, { maxAbs, maxRelative, relative, cosine }: Distance): string[] => [
  shortened(label),
  short(maxAbs),
  short(maxRelative),
  short(relative),
  cosine.toFixed(6),
];

export function verificationText(verification: Verification): string {
  const header = ['', 'max |d|', 'relative to max', 'relative L2', 'cosine'];
  const numeric = [1, 2, 3, 4];
  const lines: string[] = [];
  const section = (title: string, rows: string[][]): void => {
    if (rows.length > 0) lines.push(table([title, ...header.slice(1)], rows, numeric), '');
  };
  section(
    'output against the original',
    verification.drift.map((distance) => distanceRow(distance.name, distance)),
  );
  section(
    'site against the original',
    verification.sites.flatMap(({ site, drift }) => (drift ? [distanceRow(site, drift)] : [])),
  );
  section(
    'output against the original with sigmoid',
    verification.structure.map((distance) => distanceRow(distance.name, distance)),
  );
  lines.push(...verification.notes.map((note) => `Note: ${note}.`));
  lines.push(
    `${verification.passed ? '✔' : '✘'} ${verification.verdict} [operator as ${verification.operator}].`,
  );
  return lines.join('\n');
}

/** Infinite numbers do not exist in JSON; they are written as strings. */
export function jsonText(value: unknown): string {
  return JSON.stringify(
    value,
    (_key, item: unknown) => (typeof item === 'number' && !Number.isFinite(item) ? String(item) : item),
    2,
  );
}
