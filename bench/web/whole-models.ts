/**
 * Whole models on ONNX Runtime Web: the original in one session, the converted one cut at its attention with our kernels, and
 * the converted one in one session with the portable function. And what a cut costs.
 */

import type { InferenceSession, Tensor } from 'onnxruntime-common';
import { convert, openModel } from '../../converter/index.js';
import { install, type OrtModule } from '../../op/web/index.js';
import type { OrtWeb } from './ort-web.js';
import { ARITHMETIC_FLOPS, type KernelBench } from './kernels.js';
import { clock, type Contender, steadyRace } from './race.js';
import { transformer, type TransformerShape } from './transformer.js';

export interface ModelRow {
  readonly kind: 'whole model';
  readonly model: string;
  /** Milliseconds of a run with shapes that have come often; the cut model's runs are repeated then. */
  readonly original: number;
  readonly cut: number;
  readonly function: number;
  /** The original's time over that of the cut model. */
  readonly ratio: number;
  /** The portable function's time over that of the cut model. */
  readonly functionRatio: number;
  /** Largest difference from the original's output, relative to its largest element. */
  readonly difference: number;
  /** Between the quartiles of the rounds, relative to the median: of the contender where it is widest. */
  readonly spread: number;
  /** TFLOP/s of a loop of multiply-adds in the same rounds; `null` on software. */
  readonly clock: number | null;
}

type Shape = Omit<TransformerShape, 'attention'>;

/** Runs with options are not repeated. */
const PIECE_BY_PIECE: InferenceSession.RunOptions = { tag: 'piece by piece' };

/** Sessions with our kernels on one device, and without on another: the runtime shares settings and memory within a device. */
export class ModelBench {
  readonly #ort: OrtWeb;
  readonly #own: InferenceSession.SessionOptions;
  readonly #stock: InferenceSession.SessionOptions;

  constructor(ort: OrtWeb, own: GPUDevice, stock: GPUDevice) {
    this.#ort = ort;
    const on = (device: GPUDevice): InferenceSession.SessionOptions => ({
      executionProviders: [{ name: 'webgpu', device }] as never,
    });
    this.#own = on(own);
    this.#stock = on(stock);
  }

  /** The model of a shape, original and converted faithfully, which must agree. */
  async row(name: string, shape: Shape, rounds: number, gpu?: KernelBench): Promise<ModelRow> {
    const original = transformer({ ...shape, attention: 'softmax' });
    const feeds = this.#feeds(shape);
    const sessions = [
      await this.#withKernels(converted(original)),
      await this.#without(original),
      await this.#without(converted(original)),
    ];
    const outputs: Float32Array[] = [];
    for (const session of sessions) outputs.push((await session.run(feeds))['y']!.data as Float32Array);
    const arithmetic = gpu?.arithmetic();
    const { results, spread } = await steadyRace(
      [...sessions.map((session) => runsOf(session, feeds)), ...(arithmetic ? [arithmetic] : [])],
      rounds,
      () => gpu?.heat() ?? Promise.resolve(),
    );
    arithmetic?.free();
    const [cut, theirs, body, loop] = results;
    for (const session of sessions) await session.release();
    return {
      kind: 'whole model',
      model: name,
      original: theirs!.milliseconds,
      cut: cut!.milliseconds,
      function: body!.milliseconds,
      ratio: theirs!.ratio,
      functionRatio: body!.ratio,
      difference: difference(outputs[0]!, outputs[1]!),
      spread,
      clock: loop === undefined ? null : ARITHMETIC_FLOPS / loop.milliseconds / 1e9,
    };
  }

  /**
   * Milliseconds that a cut adds where every piece is the runtime's: a layer of a short sequence that is cut at its attention, less
   * the same layer uncut with a sum in the place of attention.
   */
  async boundary(heads: number, headSize: number, rounds: number): Promise<number> {
    const [few, many] = [2, 8];
    const shape = { heads, headSize, length: 8, causal: false };
    const perLayer = async (kind: TransformerShape['attention']): Promise<Contender> => {
      const sessions = new Map<number, InferenceSession>();
      for (const layers of [few, many]) {
        const model = transformer({ ...shape, layers, attention: kind });
        sessions.set(
          layers,
          await (kind === 'sum' ? this.#without(model) : this.#withKernels(converted(model))),
        );
      }
      const feeds = this.#feeds({ ...shape, layers: few });
      return {
        lengths: [few, many],
        run: async (layers) => {
          const times = [];
          for (let run = 0; run < 7; run++)
            times.push(await timeOf(sessions.get(layers)!, feeds, PIECE_BY_PIECE));
          return Math.min(...times);
        },
      };
    };
    const { results } = await steadyRace([await perLayer('softmax'), await perLayer('sum')], rounds);
    const [cut, whole] = results;
    return cut!.milliseconds - whole!.milliseconds;
  }

  #feeds({ length, heads, headSize }: Shape): Record<string, Tensor> {
    const width = heads * headSize;
    const data = Float32Array.from(
      { length: length * width },
      (_, i) => 1.4 * Math.sin(12.9898 * i + (i % 7)),
    );
    return { x0: new this.#ort.Tensor('float32', data, [1, length, width]) as Tensor };
  }

  #without(model: Uint8Array): Promise<InferenceSession> {
    return this.#ort.InferenceSession.create(model, this.#stock) as Promise<InferenceSession>;
  }

  async #withKernels(model: Uint8Array): Promise<InferenceSession> {
    const uninstall = install(this.#ort as unknown as OrtModule, { functionBelow: 0 });
    const session = await this.#ort.InferenceSession.create(model, this.#own);
    uninstall();
    return session as InferenceSession;
  }
}

function converted(model: Uint8Array): Uint8Array {
  const conversion = convert(openModel(model), { mode: 'faithful' });
  if (conversion.refused.length > 0 || conversion.replaced.length === 0)
    throw new Error(`not converted: ${conversion.refused.map(({ detail }) => detail).join('; ')}`);
  return conversion.toBytes();
}

async function timeOf(
  session: InferenceSession,
  feeds: Record<string, Tensor>,
  options: InferenceSession.RunOptions = {},
): Promise<number> {
  const start = clock.milliseconds();
  await session.run(feeds, options);
  return clock.milliseconds() - start;
}

/** Whole runs, the wait for the output included. */
function runsOf(session: InferenceSession, feeds: Record<string, Tensor>): Contender {
  return {
    lengths: [0, 2],
    run: async (runs) => {
      let time = 0;
      for (let run = 0; run < runs; run++) time += await timeOf(session, feeds);
      return time;
    },
  };
}

function difference(a: Float32Array, b: Float32Array): number {
  const largest = b.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  return a.reduce((most, value, i) => Math.max(most, Math.abs(value - b[i]!)), 0) / largest;
}
