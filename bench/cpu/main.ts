/**
 * `npm run bench:cpu [-- options]`: SigmoidAttention on the CPU against every other way to run attention in ONNX Runtime.
 *
 *   --json FILE          also writes machine, rows and summary
 *   --clock wall|cpu     what one-thread rows are timed by (default wall; cpu where other programs disturb)
 *   --seconds S          per row (default 2)
 *   --filter TEXT        only shapes whose name contains it
 *   --models no          without the whole models
 *
 * Everyone runs in each layout it takes; its best layout counts, ours like the others'. Ratios are medians over rounds of (time of
 * the best other / time of our best): above 1 ours is faster.
 */
import { renameSync, writeFileSync } from 'node:fs';
import { arch, cpus, platform } from 'node:os';
import '../../op/node/index.js';
import { errorOf } from './accuracy.js';
import { contenders, isOther, isOurs } from './contenders.js';
import { memoryGrowth } from './memory.js';
import { sgemm, SGEMM_FLOPS } from './sgemm.js';
import { flops, isDecode, SHAPES, type Shape } from './shapes.js';
import {
  geometricMean,
  median,
  openSession,
  pairedRatio,
  race,
  type Clock,
  type Competitor,
  type Times,
} from './timing.js';
import { raceModels, type ModelRow } from './whole-models.js';

interface Row {
  readonly shape: string;
  readonly type: Shape['type'];
  readonly decode: boolean;
  readonly threads: number;
  readonly milliseconds: Readonly<Record<string, number>>;
  readonly gflops: Readonly<Record<string, number>>;
  /** The fastest other, and our own fastest layout. */
  readonly best: string;
  readonly ours: string;
  readonly ratio: number;
  readonly sgemmGflops: number;
  readonly sgemmShare: number;
  readonly errors: Readonly<Record<string, number>>;
}

function option(name: string, fallback: string): string {
  const at = process.argv.indexOf(`--${name}`);
  return at < 0 ? fallback : (process.argv[at + 1] ?? fallback);
}

/** Calls in a session: enough that entering it does not count, about 30 ms at 50 GFLOP/s at most. */
function chainLength(shape: Shape): number {
  const milliseconds = flops(shape) / 50e6;
  return Math.max(1, Math.min(8, Math.floor(30 / Math.max(1, milliseconds))));
}

async function errors(shape: Shape): Promise<Record<string, number>> {
  const found: Record<string, number> = {};
  for (const contender of contenders(shape, 1)) {
    const session = await openSession(contender.model, 1);
    const { y } = await session.run(contender.feeds);
    found[contender.name] = errorOf(shape, contender, y!);
    await session.release();
  }
  return found;
}

async function raceShape(shape: Shape, threads: number, clock: Clock, seconds: number): Promise<Row> {
  const chain = chainLength(shape);
  const field = contenders(shape, chain);
  const competitors: Competitor[] = [];
  for (const { name, model, feeds } of field)
    competitors.push({ name, feeds, session: await openSession(model, threads) });
  competitors.push(await sgemm(threads));
  const times = await race(competitors, clock, seconds);
  for (const { session } of competitors) await session.release();

  const timed = times.filter((one) => one.name !== 'sgemm');
  const fastest = (among: Times[]): Times =>
    among.reduce((a, b) => (median(b.seconds) < median(a.seconds) ? b : a));
  const best = fastest(timed.filter(isOther));
  const ours = fastest(timed.filter(isOurs));
  const sgemmTimes = times.find((one) => one.name === 'sgemm')!;
  const perCall = (one: Times): number => median(one.seconds) / chain;
  return {
    shape: shape.name,
    type: shape.type,
    decode: isDecode(shape),
    threads,
    milliseconds: Object.fromEntries(timed.map((one) => [one.name, perCall(one) * 1e3])),
    gflops: Object.fromEntries(timed.map((one) => [one.name, flops(shape) / perCall(one) / 1e9])),
    best: best.name,
    ours: ours.name,
    ratio: pairedRatio(ours, best),
    sgemmGflops: SGEMM_FLOPS / median(sgemmTimes.seconds) / 1e9,
    sgemmShare: (pairedRatio(ours, sgemmTimes) * flops(shape) * chain) / SGEMM_FLOPS,
    errors: threads === 1 ? await errors(shape) : {},
  };
}

function printRow(row: Row): void {
  const rates = Object.entries(row.gflops).map(([name, rate]) =>
    row.decode ? `${name} ${row.milliseconds[name]!.toFixed(2)} ms` : `${name} ${rate.toFixed(0)}`,
  );
  const share = row.decode
    ? ''
    : `, ${(100 * row.sgemmShare).toFixed(0)} % of sgemm ${row.sgemmGflops.toFixed(0)}`;
  console.log(
    `${row.shape}, ${row.threads} thread(s): ${row.ours} ${row.ratio.toFixed(2)} x ${row.best}${share}\n    ${rates.join(' | ')}`,
  );
  const errorTexts = Object.entries(row.errors).map(([name, error]) => `${name} ${error.toExponential(1)}`);
  if (errorTexts.length > 0) console.log(`    errors: ${errorTexts.join(' | ')}`);
}

function summarise(rows: readonly Row[], extraBytes: number | null): Record<string, number | null> {
  const mean = (pick: (row: Row) => boolean): number | null => {
    const ratios = rows.filter(pick).map(({ ratio }) => ratio);
    return ratios.length === 0 ? null : geometricMean(ratios);
  };
  const prefill = (row: Row): boolean => !row.decode && row.type === 'float';
  const dense = rows.filter(
    (row) => prefill(row) && row.threads === 1 && !/causal|window|mask/.test(row.shape),
  );
  const rateOf = (name: string): number | undefined => {
    const found = rows.find(({ shape, threads }) => shape === name && threads === 1);
    return found?.gflops[found.ours];
  };
  const whole = rateOf('1,8,1024,64');
  const causal = rateOf('1,8,1024,64 causal');
  return {
    geomean1: mean((row) => prefill(row) && row.threads === 1),
    geomean2: mean((row) => prefill(row) && row.threads === 2),
    worst: rows.length === 0 ? null : Math.min(...rows.map(({ ratio }) => ratio)),
    decode: mean(({ decode }) => decode),
    fp16: mean((row) => !row.decode && row.type === 'float16'),
    causalSpeedup: whole === undefined || causal === undefined ? null : causal / whole,
    sgemmShare: dense.length === 0 ? null : geometricMean(dense.map(({ sgemmShare }) => sgemmShare)),
    extraBytesAt4096: extraBytes,
  };
}

/** Prints what the longest shape adds for everyone; ours in its better layout. */
function memoryOfAll(filter: string): number | null {
  const long = SHAPES.find(({ name, visible }) => visible === 'all' && name.startsWith('1,4,4096'))!;
  if (!long.name.includes(filter)) return null;
  let ours: number | null = null;
  for (const contender of contenders({ ...long, queryLength: 8, keyLength: 8 }, 1)) {
    const bytes = memoryGrowth(long, contender.name);
    if (bytes !== null && isOurs(contender)) ours = Math.min(ours ?? Infinity, bytes);
    const text = bytes === null ? 'unknown' : `${(bytes / 2 ** 20).toFixed(1)} MB`;
    console.log(`memory beyond inputs and output at ${long.name}, ${contender.name}: ${text}`);
  }
  return ours;
}

async function main(): Promise<void> {
  const clock = option('clock', 'wall') as Clock;
  const seconds = Number(option('seconds', '2'));
  const filter = option('filter', '');
  const rows: Row[] = [];
  const models: ModelRow[] = [];
  console.log(
    'GFLOP/s of 4 B H Nq Nk D; B,H(/Hkv),N(xNk),D; ratio: how many times faster than the best other',
  );
  for (const threads of [1, 2]) {
    // Waiting threads count as CPU time: with two threads only wall time means something.
    const rowClock = threads === 1 ? clock : 'wall';
    for (const shape of SHAPES.filter(({ name }) => name.includes(filter))) {
      const row = await raceShape(shape, threads, rowClock, seconds);
      rows.push(row);
      printRow(row);
    }
    if (option('models', 'yes') === 'no') continue;
    for (const row of await raceModels(rowClock, seconds, threads)) {
      models.push(row);
      const { model, mode, replaced, fusedByOrt, ratio } = row;
      console.log(
        `${model}, ${threads} thread(s), ${mode}: ${replaced} sites (ONNX Runtime's own fusion: ${fusedByOrt}), ${ratio.toFixed(2)} x the original's speed`,
      );
    }
  }
  const extraBytes = memoryOfAll(filter);
  const summary = summarise(rows, extraBytes);
  for (const [name, value] of Object.entries(summary))
    console.log(`${name}: ${value === null ? '-' : Number(value.toPrecision(4))}`);
  const file = option('json', '');
  if (file === '') return;
  const machine = {
    cpu: cpus()[0]?.model,
    cores: cpus().length,
    platform: platform(),
    arch: arch(),
    node: process.version,
    clock,
  };
  writeFileSync(`${file}.part`, JSON.stringify({ machine, rows, models, summary }, null, 2));
  renameSync(`${file}.part`, file);
}

await main();
