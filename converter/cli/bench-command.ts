/** `bench`: time of one run of each model on the same inputs, measured in turns so that disturbances hit all alike. */
import os from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import type { Feeds } from '../data/tensor.js';
import { openRuntime, type Session } from '../verify/runtime.js';
import { samplesFor } from '../verify/verify.js';
import { openModelOrFail } from './model-file.js';
import { Progress } from './progress.js';
import { runFailure } from './run-failure.js';
import { short, table } from './table.js';
import { jsonText } from './verify-text.js';

export interface BenchOptions {
  readonly json?: boolean;
  readonly data?: string;
  readonly seed: number;
}

const WARM_UPS = 2;
const ROUNDS = { min: 5, max: 200 };
const SECONDS = 5;

interface BenchRow {
  readonly model: string;
  readonly medianMs: number;
  readonly fastestMs: number;
  readonly rounds: number;
  /** The first model's median over this one's: above 1 this one is faster. */
  readonly speedup: number;
}

export async function benchCommand(files: readonly string[], options: BenchOptions): Promise<void> {
  const progress = new Progress();
  const sessions: Session[] = [];
  try {
    const runtime = await openRuntime({ spinning: true });
    for (const file of files) {
      openModelOrFail(file).close();
      sessions.push(await runtime.open(file));
    }
    const feeds = await oneRun(files[0]!, sessions[0]!, options);
    const times = await interleaved(sessions, feeds, (fraction) => progress.show('timing', fraction));
    progress.clear();
    const medians = times.map(median);
    const rows: BenchRow[] = files.map((model, i) => ({
      model,
      medianMs: medians[i]!,
      fastestMs: Math.min(...times[i]!),
      rounds: times[i]!.length,
      speedup: medians[0]! / medians[i]!,
    }));
    const machine = { cpu: os.cpus()[0]?.model ?? 'unknown', cores: os.cpus().length, node: process.version };
    if (options.json) {
      console.log(jsonText({ machine, operator: runtime.operator, rows }));
      return;
    }
    const cells = rows.map((row) => [
      path.basename(row.model),
      short(row.medianMs),
      short(row.fastestMs),
      `${short(row.speedup)} x`,
    ]);
    console.log(table(['model', 'median ms', 'fastest ms', 'speed'], cells, [1, 2, 3]));
    console.log(
      `\n${rows[0]!.rounds} rounds in turns, operator as ${runtime.operator}, ${machine.cpu}, ${machine.cores} cores.`,
    );
  } catch (error) {
    throw runFailure(error, options.data);
  } finally {
    progress.clear();
    for (const session of sessions) await session.close();
  }
}

async function oneRun(file: string, session: Session, options: BenchOptions): Promise<Feeds> {
  const { model, close } = openModelOrFail(file);
  try {
    for await (const feeds of await samplesFor({ model, folder: path.dirname(file) }, session, options))
      return feeds;
  } finally {
    close();
  }
  throw new Error('no sample data');
}

async function interleaved(
  sessions: readonly Session[],
  feeds: Feeds,
  progress: (fraction: number) => void,
): Promise<number[][]> {
  const times: number[][] = sessions.map(() => []);
  for (let round = 0; round < WARM_UPS; round++) for (const session of sessions) await session.run(feeds);
  const began = performance.now();
  for (let round = 0; round < ROUNDS.max; round++) {
    const spent = (performance.now() - began) / 1000;
    if (round >= ROUNDS.min && spent > SECONDS * sessions.length) break;
    progress(Math.max(round / ROUNDS.max, Math.min(1, spent / (SECONDS * sessions.length))));
    for (let turn = 0; turn < sessions.length; turn++) {
      const index = (turn + round) % sessions.length;
      const start = performance.now();
      await sessions[index]!.run(feeds);
      times[index]!.push(performance.now() - start);
    }
  }
  return times;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}
