/**
 * How much of a softmax model's worth a conversion keeps, in the metric of its task, on data held back from fitting:
 * `npm run bench:fidelity [-- --json out.json]`.
 */
import { writeFileSync } from 'node:fs';
import os from 'node:os';
import { performance } from 'node:perf_hooks';
import { planParameters, type PlanRequest } from '../../converter/calibrate/plan.js';
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
    const paper = await this.#converted('paper');
    const faithful = await this.#converted('faithful');
    const none = await this.#converted('calibrated');
    const chosen = await this.#kept(none);
    return {
      original: original.value,
      paper: paper.value,
      calibrated: chosen.value,
      faithful: faithful.value,
      kept: chosen.kept,
      sites: none.sites,
      calibratedKeepingNone: none.value,
    };
  }

  /** The fewest sites kept faithful that meet the goal on the fitted data. */
  async #kept(none: { value: number; bytes: Uint8Array }): Promise<{ value: number; kept: number }> {
    const { task } = this;
    const scoreFitted = async (bytes: Uint8Array): Promise<number> =>
      (await this.#score(bytes, task.scoreFitted)).value;
    const original = await scoreFitted(variantOf(task.model, {}));
    if (task.reached(original, await scoreFitted(none.bytes))) return { value: none.value, kept: 0 };
    const metric = { name: task.metric, better: task.better, score: scoreFitted };
    const { value, kept } = await this.#converted('calibrated', {
      keep: 'auto',
      within: task.within,
      metric,
    });
    return { value, kept };
  }

  async #converted(
    mode: Mode,
    keeping: Pick<PlanRequest, 'keep' | 'within' | 'metric'> = {},
  ): Promise<{ value: number; bytes: Uint8Array; sites: number; kept: number }> {
    const { task, runtime } = this;
    const began = performance.now();
    const cpuBefore = process.cpuUsage();
    const plan = await planParameters({
      placed: { model: task.model, folder: task.folder },
      mode,
      runtime: () => Promise.resolve(runtime),
      source: task.fitting,
      seed: SEED,
      ...keeping,
    });
    const conversion = convert(task.model, { mode, parameters: ({ name }) => plan.parameters.get(name) });
    const seconds = (performance.now() - began) / 1000;
    const { user, system } = process.cpuUsage(cpuBefore);
    const time = { seconds, cpuSeconds: (user + system) / 1e6 };
    const bytes = conversion.toBytes();
    const sites = conversion.replaced.length;
    const kept = plan.calibration?.choice?.keep ?? 0;
    const score = await this.#score(bytes, task.scoreJudged);
    this.#add(mode, kept, sites, score, time);
    return { value: score.value, bytes, sites, kept };
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
