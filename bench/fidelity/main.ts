/**
 * How much of a softmax model's worth a conversion keeps, in the metric of its task, on data held back from fitting:
 * `npm run bench:fidelity [-- --json out.json]`.
 */
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import { performance } from 'node:perf_hooks';
import { planParameters } from '../../converter/calibrate/plan.js';
import { short, table } from '../../converter/cli/table.js';
import type { Mode } from '../../converter/conversion.js';
import { convert } from '../../converter/index.js';
import { openRuntime, type Runtime, type Session } from '../../converter/verify/runtime.js';
import { variantOf } from '../../converter/verify/variant.js';
import { charLmTask } from './char-lm.js';
import { digitsTask } from './digits.js';
import { ocrTask } from './ocr.js';
import type { Score, Task } from './task.js';

interface Row {
  readonly task: string;
  readonly form: string;
  /** Sites left in faithful mode. */
  readonly kept: number;
  readonly sites: number;
  readonly value: number;
  /** Decisions that differ from the original's, of how many. */
  readonly differing: number;
  readonly decisions: number;
  /** Of planning and converting: on the clock, and of the processor. */
  readonly fitSeconds: number;
  readonly fitCpuSeconds: number;
}

interface FitTime {
  readonly seconds: number;
  readonly cpuSeconds: number;
}

interface Summary {
  readonly original: number;
  readonly paper: number;
  readonly calibrated: number;
  readonly faithful: number;
  /** Sites that `calibrated` leaves faithful, chosen on the fitted data, and the result with none. */
  readonly kept: number;
  readonly sites: number;
  readonly calibratedKeepingNone: number;
}

const SEED = 1;

class TaskBench {
  readonly rows: Row[] = [];
  #original: Score | null = null;

  constructor(
    private readonly task: Task,
    private readonly runtime: Runtime,
  ) {}

  async run(): Promise<Summary> {
    const { task } = this;
    const original = await this.#score(variantOf(task.model, {}), task.scoreJudged);
    this.#original = original;
    this.#add('original', 0, 0, original, { seconds: 0, cpuSeconds: 0 });
    const paper = await this.#converted('paper', 0);
    const faithful = await this.#converted('faithful', 0);
    const none = await this.#converted('calibrated', 0);
    let chosen = none;
    const fittedOriginal = await this.#score(variantOf(task.model, {}), task.scoreFitted);
    for (let keep = 0; keep < none.sites; keep++) {
      const bytes = keep === 0 ? none.bytes : await this.#bytes('calibrated', keep);
      const fitted = await this.#score(bytes, task.scoreFitted);
      if (!task.reached(fittedOriginal.value, fitted.value) && keep < none.sites - 1) continue;
      if (keep > 0) chosen = await this.#converted('calibrated', keep);
      return {
        original: original.value,
        paper: paper.value,
        calibrated: chosen.value,
        faithful: faithful.value,
        kept: keep,
        sites: none.sites,
        calibratedKeepingNone: none.value,
      };
    }
    throw new Error(`task ${task.name}: its model has no site to convert`);
  }

  async #bytes(mode: Mode, keep: number): Promise<Uint8Array> {
    return (await this.#conversion(mode, keep)).bytes;
  }

  async #conversion(mode: Mode, keep: number): Promise<{ bytes: Uint8Array; sites: number; time: FitTime }> {
    const { task, runtime } = this;
    const began = performance.now();
    const cpuBefore = process.cpuUsage();
    const plan = await planParameters({
      placed: { model: task.model, folder: task.folder },
      mode,
      runtime: () => Promise.resolve(runtime),
      source: task.fitting,
      keep,
      seed: SEED,
    });
    const conversion = convert(task.model, { mode, parameters: ({ name }) => plan.parameters.get(name) });
    const seconds = (performance.now() - began) / 1000;
    const { user, system } = process.cpuUsage(cpuBefore);
    const time = { seconds, cpuSeconds: (user + system) / 1e6 };
    return { bytes: conversion.toBytes(), sites: conversion.replaced.length, time };
  }

  async #converted(mode: Mode, keep: number): Promise<{ value: number; bytes: Uint8Array; sites: number }> {
    const { bytes, sites, time } = await this.#conversion(mode, keep);
    const score = await this.#score(bytes, this.task.scoreJudged);
    this.#add(mode, keep, sites, score, time);
    return { value: score.value, bytes, sites };
  }

  async #score(bytes: Uint8Array, score: (session: Session) => Promise<Score>): Promise<Score> {
    const session = await this.runtime.open(bytes, this.task.folder);
    try {
      return await score(session);
    } finally {
      await session.close();
    }
  }

  #add(form: string, kept: number, sites: number, { value, decisions }: Score, time: FitTime): void {
    const differing = decisions.filter((decision, i) => decision !== this.#original!.decisions[i]).length;
    this.rows.push({
      task: this.task.name,
      form,
      kept,
      sites,
      value,
      differing,
      decisions: decisions.length,
      fitSeconds: time.seconds,
      fitCpuSeconds: time.cpuSeconds,
    });
  }
}

const argv = process.argv.slice(2);
const runtime = await openRuntime();
const tasks: Task[] = [ocrTask()];
const charLm = charLmTask();
if (charLm) tasks.push(charLm);
else console.log('charLm skipped: set ZOO_DIR to the folder of the unpacked model zoo');
tasks.push(digitsTask());
const rows: Row[] = [];
const summary: Record<string, Summary> = {};
for (const task of tasks) {
  const bench = new TaskBench(task, runtime);
  const result = await bench.run();
  rows.push(...bench.rows);
  summary[task.name] = result;
  const cells = bench.rows.map((row) => [
    row.kept > 0 ? `${row.form}, ${row.kept} of ${row.sites} sites kept faithful` : row.form,
    short(Number(row.value.toPrecision(5))),
    `${row.differing} of ${row.decisions}`,
    row.fitSeconds > 0 ? row.fitSeconds.toFixed(1) : '',
    row.fitSeconds > 0 ? row.fitCpuSeconds.toFixed(1) : '',
  ]);
  console.log(`\n${task.name}: fitted on ${task.fitted}, judged on ${task.judged}`);
  console.log(
    table(['form', task.metric, 'decisions that differ', 'seconds', 'of processor'], cells, [1, 2, 3, 4]),
  );
  const reached = task.reached(result.original, result.calibrated);
  console.log(`goal for calibrated, ${task.goal}: ${reached ? 'reached' : 'missed'}`);
}
const machine = {
  cpu: os.cpus()[0]?.model ?? 'unknown',
  cores: os.cpus().length,
  node: process.version,
  operator: runtime.operator,
};
const jsonFlag = argv.indexOf('--json');
const jsonFile = jsonFlag < 0 ? undefined : argv[jsonFlag + 1];
if (jsonFile !== undefined) {
  writeFileSync(jsonFile, `${JSON.stringify({ machine, rows, summary }, null, 2)}\n`);
} else if (jsonFlag >= 0) console.log(JSON.stringify({ machine, rows, summary }));
