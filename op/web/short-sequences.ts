/**
 * Chooses per run between the cut model and one session with the portable function. A cut costs about the same however
 * short the sequence is, while the kernels save time in proportion to it. Where the cross-over lies depends on the device, so
 * that short shapes are timed both ways when they come again.
 */

import type { InferenceSession } from 'onnxruntime-common';
import { enqueue } from './queue.js';
import type { Feeds, Fetches, Results, SessionHandler } from './runtime.js';
import type { SplitSession, TimedResults } from './split-session.js';

/** Query length times key length above which the kernels were faster on every device measured: nothing is tried there. */
export const MEASURED_BELOW = 512 * 512;

/** Timed runs of each way before one is chosen. */
const TRIALS = 3;
/** One timed run of each is enough where a way takes so many times as long as the other. */
const PLAIN_RATIO = 1.5;
/** Input shapes whose choice is remembered. */
const MAX_SHAPES = 256;

type Way = 'cut' | 'function';

/** What is known of one set of input shapes; its first run is always cut, since only the kernels see their shapes. */
class Choice {
  readonly #times: Record<Way, number[]> = { cut: [], function: [] };
  #chosen: Way | undefined;
  /** The cut model does not yet run as fast as it will. */
  #isPreparing = false;

  constructor(chosen?: Way) {
    this.#chosen = chosen;
  }

  /** The way that the next run takes. */
  get next(): Way {
    if (this.#isPreparing) return this.#chosen ?? 'cut';
    const { cut, function: body } = this.#times;
    return this.#chosen ?? (body.length <= cut.length ? 'function' : 'cut');
  }

  get needsFunction(): boolean {
    return this.#chosen !== 'cut';
  }

  /** A run of the cut model; where the runtime has little part in it, cuts cost next to nothing, and there is nothing to choose. */
  recordCut({ way, milliseconds }: Pick<TimedResults, 'way' | 'milliseconds'>): void {
    this.#isPreparing = way === 'preparing';
    if (way === 'replayed') this.#chosen ??= 'cut';
    else if (way === 'direct') this.record('cut', milliseconds);
  }

  record(way: Way, milliseconds: number): void {
    if (this.#chosen !== undefined) return;
    this.#times[way].push(milliseconds);
    const { cut, function: body } = this.#times;
    // The first run of each way is left out: it makes pipelines and buffers.
    const [ours, theirs] = [Math.min(...cut.slice(1)), Math.min(...body.slice(1))];
    const isPlain = Math.max(ours, theirs) > PLAIN_RATIO * Math.min(ours, theirs);
    const trials = isPlain ? 1 : TRIALS;
    if (cut.length > trials && body.length > trials) this.#chosen = theirs < ours ? 'function' : 'cut';
  }
}

export class ShortSequenceSession implements SessionHandler {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly outputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly #split: SplitSession;
  readonly #functionBelow: number | undefined;
  readonly #createFunctionSession: () => Promise<InferenceSession>;
  #functionSession: Promise<InferenceSession> | undefined;
  readonly #choices = new Map<string, Choice>();

  /** @param functionBelow query length times key length up to which the function runs; measured when absent */
  constructor(
    split: SplitSession,
    functionBelow: number | undefined,
    createFunctionSession: () => Promise<InferenceSession>,
  ) {
    this.#split = split;
    this.#functionBelow = functionBelow;
    this.#createFunctionSession = createFunctionSession;
    this.inputNames = split.inputNames;
    this.outputNames = split.outputNames;
    this.inputMetadata = split.inputMetadata;
    this.outputMetadata = split.outputMetadata;
  }

  async run(feeds: Feeds, fetches: Fetches, options: InferenceSession.RunOptions): Promise<Results> {
    const shapes = this.inputNames.map((name) => feeds[name]!.dims.join('x')).join();
    const choice = this.#choices.get(shapes);
    if (choice?.next === 'function') return this.#runFunction(choice, feeds, fetches, options);
    const run = await this.#split.timedRun(feeds, fetches, options);
    if (choice !== undefined) {
      choice.recordCut(run);
      await this.#releaseUnused();
    } else if (this.#choices.size < MAX_SHAPES) this.#choices.set(shapes, this.#firstChoice(run));
    return run.results;
  }

  #firstChoice(run: TimedResults): Choice {
    if (this.#functionBelow !== undefined)
      return new Choice(run.work <= this.#functionBelow ? 'function' : 'cut');
    if (run.work > MEASURED_BELOW) return new Choice('cut');
    const choice = new Choice();
    choice.recordCut(run);
    return choice;
  }

  async #runFunction(
    choice: Choice,
    feeds: Feeds,
    fetches: Fetches,
    options: InferenceSession.RunOptions,
  ): Promise<Results> {
    const session = await (this.#functionSession ??= this.#createFunctionSession());
    return enqueue(async () => {
      const start = performance.now();
      const results = (await session.run(feeds, fetches, options)) as Results;
      choice.record('function', performance.now() - start);
      return results;
    });
  }

  /** The second session holds the weights once more; it goes when no shape wants it. */
  async #releaseUnused(): Promise<void> {
    if (this.#functionSession === undefined) return;
    if ([...this.#choices.values()].some(({ needsFunction }) => needsFunction)) return;
    const session = this.#functionSession;
    this.#functionSession = undefined;
    const unused = await session;
    await enqueue(() => unused.release());
  }

  startProfiling(): void {
    this.#split.startProfiling();
  }

  endProfiling(): void {
    this.#split.endProfiling();
  }

  async dispose(): Promise<void> {
    await this.#split.dispose();
    const session = await this.#functionSession;
    if (session !== undefined) await enqueue(() => session.release());
  }
}
