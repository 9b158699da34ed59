/** One benchmark's page: its machine, summary and rows as Markdown, and its plot. */
import { barChart, type Bar } from './bar-chart.js';

export type Cell = string | number | boolean | null;
export type Row = Readonly<Record<string, unknown>>;

/** What every benchmark writes with `--json`. */
export interface BenchmarkData {
  readonly machine: Readonly<Record<string, unknown>>;
  readonly rows: readonly Row[];
  readonly summary: Readonly<Record<string, unknown>>;
  /** Whole models, where the rows are single operators. */
  readonly models?: readonly Row[];
}

/** How a benchmark is shown; one without a view of its own gets the columns that its rows have. */
export interface View {
  readonly title: string;
  readonly text: string;
  /** The command that wrote the data. */
  readonly command: string;
  readonly columns?: readonly string[];
  readonly plot?: {
    readonly title: string;
    readonly line: number | null;
    readonly bars: (row: Row) => readonly Bar[];
  };
  /** Rows put together, where single ones are too many to read. */
  readonly grouped?: (rows: readonly Row[]) => readonly Row[];
}

const MAX_ROWS = 200;
const MODELS_TEXT =
  'A converted model against the original as ONNX Runtime optimises it, its own attention fusion included: `fusedByOrt` ' +
  'counts the attention operators that this fusion made, `replaced` the attention sites that the converter replaced.';
const MAX_COLUMNS = 16;

/** Reads and checks what a benchmark wrote. @throws Error that names what is missing */
export function readData(text: string, file: string): BenchmarkData {
  const data: unknown = JSON.parse(text);
  const parts = (typeof data === 'object' && data !== null ? data : {}) as Record<string, unknown>;
  for (const part of ['machine', 'summary']) {
    if (typeof parts[part] !== 'object' || parts[part] === null)
      throw new Error(`${file} has no object '${part}'`);
  }
  if (!Array.isArray(parts['rows'])) throw new Error(`${file} has no list 'rows'`);
  if (parts['models'] !== undefined && !Array.isArray(parts['models']))
    throw new Error(`${file}: 'models' is not a list`);
  return parts as unknown as BenchmarkData;
}

export interface Page {
  readonly markdown: string;
  /** SVG text; null where the view has no plot or no row has a bar. */
  readonly plot: string | null;
}

export function page(name: string, data: BenchmarkData, view: View): Page {
  const rows = view.grouped === undefined ? data.rows : view.grouped(data.rows);
  const bars = view.plot === undefined ? [] : rows.flatMap(view.plot.bars);
  const plot =
    view.plot === undefined || bars.length === 0
      ? null
      : barChart({ title: view.plot.title, line: view.plot.line, bars });
  const parts = [
    `# ${view.title}`,
    view.text,
    `Written by \`${view.command}\`; data: [${name}.json](../data/${name}.json).`,
    '## Machine',
    table(['', ''], Object.entries(flat(data.machine))),
    '## Summary',
    table(['', ''], Object.entries(flat(data.summary))),
    ...(plot === null ? [] : [`![${view.plot!.title}](${name}.svg)`]),
    ...byKind(rows).flatMap(([kind, own]) => [`## ${kind}`, rowsTable(own, view.columns)]),
    ...(data.models === undefined || data.models.length === 0
      ? []
      : ['## Whole models', MODELS_TEXT, rowsTable(data.models, undefined)]),
  ];
  return { markdown: `${parts.join('\n\n')}\n`, plot };
}

/** Rows that say their kind are of several tables. */
function byKind(rows: readonly Row[]): [title: string, rows: readonly Row[]][] {
  const kindOf = (row: Row): string => (typeof row['kind'] === 'string' ? row['kind'] : 'rows');
  const kinds = [...new Set(rows.map(kindOf))];
  return kinds.map((kind) => [
    kind.charAt(0).toUpperCase() + kind.slice(1),
    rows.filter((row) => kindOf(row) === kind),
  ]);
}

function rowsTable(rows: readonly Row[], wanted: readonly string[] | undefined): string {
  const shown = rows.slice(0, MAX_ROWS).map((row) => flat(row));
  const columns =
    wanted ??
    [...new Set(shown.flatMap((row) => Object.keys(row).filter((column) => column !== 'kind')))].slice(
      0,
      MAX_COLUMNS,
    );
  const text = table(
    columns,
    shown.map((row) => columns.map((column) => row[column] ?? null)),
  );
  return rows.length > MAX_ROWS
    ? `${text}\n\nThe first ${MAX_ROWS} of ${rows.length}; the data has them all.`
    : text;
}

/** Nested objects as one level: `errors.ours`. Lists are joined. */
export function flat(value: Readonly<Record<string, unknown>>, prefix = ''): Record<string, Cell> {
  const out: Record<string, Cell> = {};
  for (const [key, entry] of Object.entries(value)) {
    if (Array.isArray(entry)) out[prefix + key] = entry.map(String).join(', ');
    else if (typeof entry === 'object' && entry !== null) {
      Object.assign(out, flat(entry as Record<string, unknown>, `${prefix}${key}.`));
    } else out[prefix + key] = entry as Cell;
  }
  return out;
}

export function table(columns: readonly string[], rows: readonly (readonly Cell[])[]): string {
  const line = (cells: readonly string[]): string => `| ${cells.join(' | ')} |`;
  const body = rows.map((row) => line(row.map(show)));
  return [line(columns.map(String)), line(columns.map(() => '---')), ...body].join('\n');
}

function show(cell: Cell): string {
  if (cell === null) return '';
  if (typeof cell === 'number') return String(Number.isInteger(cell) ? cell : Number(cell.toPrecision(4)));
  return String(cell).replaceAll('|', '\\|').replaceAll('\n', ' ');
}
