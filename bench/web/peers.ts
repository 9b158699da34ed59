/** ONNX Runtime's WebGPU provider as the peer: its own MultiHeadAttention, and the portable function. */

import type { InferenceSession, Tensor } from 'onnxruntime-common';
import { storedData } from './kernels.js';
import { chainModel, type PeerKind } from './models.js';
import { clock, type Contender } from './race.js';
import type { BenchShape } from './shapes.js';

/** What the two packages of ONNX Runtime have in common. */
export interface Runtime {
  readonly InferenceSession: {
    create(model: Uint8Array, options: InferenceSession.SessionOptions): Promise<InferenceSession>;
  };
  readonly Tensor: new (type: 'float32' | 'float16', data: never, dims: readonly number[]) => Tensor;
}

/** A runtime and the options that put its sessions on a provider. */
export interface Provider {
  readonly ort: Runtime;
  readonly options: InferenceSession.SessionOptions;
}

function feedsOf(shape: BenchShape, { ort }: Provider): Record<string, Tensor> {
  const width = shape.heads * shape.headSize;
  const data = storedData(shape);
  const tensor = (values: Float32Array | Uint16Array, length: number): Tensor =>
    new ort.Tensor(shape.type === 'f32' ? 'float32' : 'float16', values as never, [1, length, width]);
  return {
    x: tensor(data.x, shape.queryLength),
    k: tensor(data.k, shape.keyLength),
    v: tensor(data.v, shape.keyLength),
  };
}

/** What one node returns. */
export async function peerResult(shape: BenchShape, kind: PeerKind, provider: Provider): Promise<Uint8Array> {
  const session = await provider.ort.InferenceSession.create(chainModel(shape, kind, 1), provider.options);
  const { y } = await session.run(feedsOf(shape, provider));
  const { buffer, byteOffset, byteLength } = y!.data as Float32Array;
  await session.release();
  return new Uint8Array(buffer, byteOffset, byteLength);
}

/** A contender whose repetitions are the nodes of a chain; release it at the end. */
export async function peerContender(
  shape: BenchShape,
  kind: PeerKind,
  provider: Provider,
  lengths: readonly [number, number],
): Promise<Contender & { release(): Promise<void> }> {
  const feeds = feedsOf(shape, provider);
  const sessions = new Map<number, InferenceSession>();
  for (const nodes of lengths)
    sessions.set(
      nodes,
      await provider.ort.InferenceSession.create(chainModel(shape, kind, nodes), provider.options),
    );
  return {
    lengths,
    run: async (nodes) => {
      const start = clock.milliseconds();
      await sessions.get(nodes)!.run(feeds);
      return clock.milliseconds() - start;
    },
    release: async () => {
      for (const session of sessions.values()) await session.release();
    },
  };
}
