/**
 * Chooses per run between the cut model and one session with the portable function. A cut costs about the same however
 * short the sequence is, while the kernels save time in proportion to it.
 */

import type { InferenceSession } from 'onnxruntime-common';
import { enqueue } from './queue.js';
import type { Feeds, Fetches, Results, SessionHandler } from './runtime.js';
import type { SplitSession } from './split-session.js';

/** Query length times key length up to which one session with the function was as fast, by the table in docs/web.md. */
export const DEFAULT_FUNCTION_BELOW = 16 * 16;

/** Input shapes whose sequence length is remembered. */
const MAX_SHAPES = 256;

/**
 * Which way a run goes is decided by the attention that a run with the same input shapes had before; the first one is
 * always cut, since only the kernels see their shapes.
 */
export class ShortSequenceSession implements SessionHandler {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly outputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly #split: SplitSession;
  readonly #functionBelow: number;
  readonly #createFunctionSession: () => Promise<InferenceSession>;
  #functionSession: Promise<InferenceSession> | undefined;
  readonly #workOfShapes = new Map<string, number>();

  constructor(
    split: SplitSession,
    functionBelow: number,
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
    const known = this.#workOfShapes.get(shapes);
    if (known !== undefined && known <= this.#functionBelow) {
      const session = await (this.#functionSession ??= this.#createFunctionSession());
      return enqueue(() => session.run(feeds, fetches, options)) as Promise<Results>;
    }
    let work = 0;
    const results = await this.#split.run(feeds, fetches, options, (seen) => (work = Math.max(work, seen)));
    if (this.#workOfShapes.size < MAX_SHAPES) this.#workOfShapes.set(shapes, work);
    return results;
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
