/**
 * `npm run bench:converter [-- --json out.json] [--filter text]`: converts every model of the zoo (ZOO_DIR), runs original and
 * converted model, and prints how many sites were found, replaced and verified, by exporter.
 */
import { writeFileSync } from 'node:fs';
import { arch, cpus, platform } from 'node:os';
import { join } from 'node:path';
import { openModel } from '../../converter/index.js';
import { checkModel, type Outcome } from '../../proving/check-model.js';
import { measureDense, measureScaling } from './scaling.js';
import { openZoo, type ZooEntry } from '../../proving/zoo.js';

interface Row extends Outcome {
  readonly path: string;
  readonly exporter: string;
  readonly polarity: string;
  readonly expected: number;
  readonly fullyReplaced: boolean;
  readonly verified: boolean;
}

/** Relative to the largest output; half precision rounds at 2^-11 and layers add up. */
const TOLERANCE = { float: 1e-4, half: 5e-3 } as const;

function argument(name: string): string | undefined {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? undefined : process.argv[at + 1];
}

function tolerance(entry: ZooEntry): number {
  return entry.dtype.includes('16') ? TOLERANCE.half : TOLERANCE.float;
}

async function main(): Promise<void> {
  const folder = process.env['ZOO_DIR'];
  if (folder === undefined) {
    console.log('skipped: ZOO_DIR, the folder of the model zoo, is not set');
    return;
  }
  const zoo = openZoo(folder, process.env['ZOO_INDEX'] ?? join(folder, 'index.json'));
  const filter = argument('filter');
  const rows: Row[] = [];
  for (const entry of zoo.entries) {
    if (filter !== undefined && !entry.path.includes(filter)) continue;
    rows.push(await rowOf(entry, zoo.bytes(entry)));
  }

  async function rowOf(entry: ZooEntry, bytes: Uint8Array): Promise<Row> {
    const expected = entry.softmax_sites + entry.sigmoid_sites;
    const base = { path: entry.path, exporter: entry.exporter_id, polarity: entry.polarity, expected };
    const mode = entry.sigmoid_sites > 0 && entry.softmax_sites === 0 ? 'fuse' : 'faithful';
    try {
      const model = openModel(bytes);
      let outcome = await checkModel(bytes, zoo.feeds(entry, model), { mode });
      const recordings = zoo.recordings(entry, model);
      if (outcome.error === null && !entry.ort_runs && recordings.length > 0) {
        // ONNX Runtime does not run the original: the conversion is compared with what the model's author recorded.
        const expected = recordings.map(({ outputs }) => outputs);
        const inputs = recordings.map((recording) => recording.inputs);
        outcome = await checkModel(bytes, inputs, { mode, expected });
      }
      const fullyReplaced = outcome.replaced >= expected;
      const verified = outcome.error !== null && outcome.error <= tolerance(entry);
      return { ...base, ...outcome, fullyReplaced, verified };
    } catch (problem) {
      const failure = problem instanceof Error ? (problem.stack ?? problem.message) : String(problem);
      return {
        ...base,
        replaced: 0,
        refused: [],
        error: null,
        failure,
        fullyReplaced: false,
        verified: false,
      };
    }
  }
  report(rows);
}

function report(rows: readonly Row[]): void {
  const positives = rows.filter(({ polarity }) => polarity === 'positive');
  const falseReplacements = rows.filter(
    ({ polarity, replaced }) => polarity.startsWith('negative') && replaced > 0,
  );
  const failed = positives.filter(({ fullyReplaced, verified }) => !fullyReplaced || !verified);
  for (const row of failed) {
    const reason =
      row.failure?.slice(0, 300) ??
      (row.fullyReplaced ? `error ${row.error?.toExponential(1) ?? 'none'}` : row.refused.join('; '));
    console.log(`${row.path}: ${row.replaced} of ${row.expected} replaced; ${reason}`);
  }
  for (const row of falseReplacements) console.log(`${row.path}: FALSE REPLACEMENT of ${row.replaced}`);
  const exporters = [...new Set(positives.map(({ exporter }) => exporter))].sort();
  console.log('\nexporter'.padEnd(34) + 'files  replaced  verified');
  for (const exporter of exporters) {
    const own = positives.filter((row) => row.exporter === exporter);
    const replaced = own.filter((row) => row.fullyReplaced).length;
    const verified = own.filter((row) => row.fullyReplaced && row.verified).length;
    console.log(
      exporter.padEnd(33) +
        String(own.length).padStart(5) +
        String(replaced).padStart(10) +
        String(verified).padStart(10),
    );
  }
  const summary = {
    positives: positives.length,
    fullyReplaced: positives.filter((row) => row.fullyReplaced).length,
    verified: positives.filter((row) => row.fullyReplaced && row.verified).length,
    falseReplacements: falseReplacements.length,
  };
  console.log(summary);
  const isWhole = argument('filter') === undefined;
  const scaling = isWhole ? measureScaling() : [];
  const dense = isWhole ? [measureDense()] : [];
  console.log('\n  nodes  sites  inspected in (processor time)');
  for (const { nodes, sites, milliseconds } of [...scaling, ...dense]) {
    console.log(`${String(nodes).padStart(7)}${String(sites).padStart(7)}  ${milliseconds.toFixed(0)} ms`);
  }
  const output = argument('json');
  if (output !== undefined) {
    const machine = {
      cpu: cpus()[0]?.model ?? '',
      cores: cpus().length,
      platform: platform(),
      arch: arch(),
      node: process.version,
    };
    writeFileSync(output, JSON.stringify({ machine, rows, scaling, dense, summary }, null, 1));
  }
}

await main();
