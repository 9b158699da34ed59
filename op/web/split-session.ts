/**
 * A converted model as a chain of ordinary sessions on the WebGPU provider with our kernels between them. Everything stays
 * on one device and in one queue, so that nothing is read back and nothing has to be waited for in between.
 */

import type { InferenceSession, Tensor } from 'onnxruntime-common';
import type { GpuTensor } from '../../wgsl/tensor.js';
import type { AttentionSite } from './attention-site.js';
import type { DeviceContext } from './device-context.js';
import { DirectRun } from './direct-run.js';
import { PieceOutputs } from './piece-outputs.js';
import { enqueue } from './queue.js';
import { Replays } from './replays.js';
import type { Feeds, Fetches, OrtModule, Results, SessionHandler } from './runtime.js';

/** A stage that is ready to run. */
export interface LoadedStage {
  readonly session: InferenceSession | undefined;
  readonly attention: readonly AttentionSite[];
}

export interface LoadedModel {
  readonly stages: readonly LoadedStage[];
  readonly lastReader: ReadonlyMap<string, number>;
  /** Initializers that attention nodes read, on the GPU. */
  readonly constants: ReadonlyMap<string, GpuTensor>;
  readonly inputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly outputMetadata: readonly InferenceSession.ValueMetadata[];
  /** Where the caller wants an output. */
  readonly outputLocation: (name: string) => Tensor.DataLocation;
  readonly releaseConstants: () => void;
}

/** A run with what it took. */
export interface TimedResults {
  readonly results: Results;
  /** Of its largest attention: query length times key length. */
  readonly work: number;
  /** Without the wait for its turn. */
  readonly milliseconds: number;
  /**
   * How it ran: without the runtime for half of the pieces or more, with it, or with it and more slowly than later runs of the same
   * shapes, whose repetition it prepares.
   */
  readonly way: 'direct' | 'preparing' | 'replayed';
}

export class SplitSession implements SessionHandler {
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly outputMetadata: readonly InferenceSession.ValueMetadata[];
  readonly #context: DeviceContext;
  readonly #model: LoadedModel;
  readonly #replays: Replays;
  #released = false;

  constructor(ort: OrtModule, context: DeviceContext, model: LoadedModel) {
    this.#context = context;
    this.#model = model;
    const outputs = model.stages.map(() => new PieceOutputs(ort, context));
    this.#replays = new Replays(
      ort,
      context,
      model,
      (feeds, fetches, options, plan) =>
        new DirectRun(ort, context, model, outputs, feeds, fetches, options, plan),
    );
    this.inputMetadata = model.inputMetadata;
    this.outputMetadata = model.outputMetadata;
    this.inputNames = model.inputMetadata.map(({ name }) => name);
    this.outputNames = model.outputMetadata.map(({ name }) => name);
  }

  async run(feeds: Feeds, fetches: Fetches, options: InferenceSession.RunOptions): Promise<Results> {
    return (await this.timedRun(feeds, fetches, options)).results;
  }

  timedRun(feeds: Feeds, fetches: Fetches, options: InferenceSession.RunOptions): Promise<TimedResults> {
    return enqueue(async () => {
      if (this.#released) throw new Error('the session was released');
      const start = performance.now();
      const run = this.#replays.run(feeds, fetches, options);
      const { results, work, way } = await Promise.race([run, this.#context.lost]);
      return { results, work, way, milliseconds: performance.now() - start };
    });
  }

  startProfiling(): void {
    for (const { session } of this.#model.stages) session?.startProfiling();
  }

  endProfiling(): void {
    for (const { session } of this.#model.stages) session?.endProfiling();
  }

  dispose(): Promise<void> {
    return enqueue(async () => {
      if (this.#released) return;
      this.#released = true;
      this.#replays.release();
      for (const { session } of this.#model.stages) await session?.release();
      this.#model.releaseConstants();
      this.#context.release();
    });
  }
}
