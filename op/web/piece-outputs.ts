/**
 * Output tensors of a piece that exist before it runs: their buffers come from our pool, which costs less than the runtime's
 * own allocation on every run. Their shapes are those that the last run with the same input shapes had.
 */

import type { InferenceSession, Tensor } from 'onnxruntime-common';
import type { DeviceContext } from './device-context.js';
import { byteLengthOf, type Feeds, type OrtModule } from './runtime.js';

interface OutputForm {
  readonly type: Tensor.Type;
  readonly dims: readonly number[];
}

/** Input shapes that are remembered for each piece. */
const MAX_SHAPES = 64;

export class PieceOutputs {
  readonly #ort: OrtModule;
  readonly #context: DeviceContext;
  /** By input shapes: the outputs that lay on the GPU. */
  readonly #forms = new Map<string, ReadonlyMap<string, OutputForm>>();

  constructor(ort: OrtModule, context: DeviceContext) {
    this.#ort = ort;
    this.#context = context;
  }

  /**
   * Runs a piece. Outputs named in `own` are allocated here where their shapes are known; all others as `fetches` say. When the
   * shapes turn out to depend on more than the input shapes, the runtime refuses, and the piece runs again without ours.
   */
  async run(
    session: InferenceSession,
    feeds: Feeds,
    fetches: Readonly<Record<string, Tensor | null>>,
    own: readonly string[],
    options: InferenceSession.RunOptions,
  ): Promise<Record<string, Tensor>> {
    const shapes = Object.values(feeds)
      .map(({ dims }) => dims.join('x'))
      .join();
    const forms = this.#forms.get(shapes);
    if (forms !== undefined) {
      const prepared = await this.#allocate(own, forms);
      try {
        return await session.run(feeds, { ...fetches, ...prepared }, options);
      } catch {
        this.#forms.delete(shapes);
        for (const tensor of Object.values(prepared)) tensor.dispose();
      }
    }
    const results = await session.run(feeds, fetches, options);
    if (this.#forms.size < MAX_SHAPES)
      this.#forms.set(
        shapes,
        new Map(
          own.flatMap((name) => {
            const { type, dims, location } = results[name]!;
            return location === 'gpu-buffer' && byteLengthOf(type, dims) > 0 ? [[name, { type, dims }]] : [];
          }),
        ),
      );
    return results;
  }

  async #allocate(
    names: readonly string[],
    forms: ReadonlyMap<string, OutputForm>,
  ): Promise<Record<string, Tensor>> {
    const { buffers } = this.#context;
    const prepared: Record<string, Tensor> = {};
    for (const name of names) {
      const form = forms.get(name);
      if (form === undefined) continue;
      const buffer = await buffers.acquire(byteLengthOf(form.type, form.dims));
      prepared[name] = this.#ort.Tensor.fromGpuBuffer(buffer, {
        dataType: form.type as 'float32',
        dims: form.dims,
        dispose: () => buffers.release(buffer),
      });
    }
    return prepared;
  }
}
