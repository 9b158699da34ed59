/** ONNX Runtime's WebGPU provider in Node, as the peer: its own MultiHeadAttention, and the portable function. */

import * as ort from 'onnxruntime-node';
import { bytesOf, hostData, slope } from './kernels.js';
import { chainModel, type PeerKind } from './models.js';
import type { BenchShape } from './shapes.js';

type Feeds = Record<string, ort.Tensor>;

function feedsOf(shape: BenchShape): Feeds {
  const width = shape.heads * shape.headSize;
  const data = hostData(shape);
  const tensor = (values: Float32Array, length: number): ort.Tensor =>
    shape.type === 'f32'
      ? new ort.Tensor('float32', values, [1, length, width])
      : new ort.Tensor('float16', bytesOf(values, 'f16') as Uint16Array, [1, length, width]);
  return {
    x: tensor(data.x, shape.queryLength),
    k: tensor(data.k, shape.keyLength),
    v: tensor(data.v, shape.keyLength),
  };
}

/** What one node returns on the given provider. */
export async function peerResult(
  shape: BenchShape,
  kind: PeerKind,
  provider: 'webgpu' | 'cpu',
): Promise<Float32Array | Uint16Array> {
  const session = await ort.InferenceSession.create(chainModel(shape, kind, 1), {
    executionProviders: [provider],
  });
  const { y } = await session.run(feedsOf(shape));
  await session.release();
  return y!.data as Float32Array;
}

/** Milliseconds of one node: the slope over two lengths of chain, so that copies from and to the host cancel out. */
export async function peerTime(
  shape: BenchShape,
  kind: PeerKind,
  lengths: readonly [number, number],
  rounds: number,
): Promise<number> {
  const feeds = feedsOf(shape);
  const sessions = new Map<number, ort.InferenceSession>();
  for (const nodes of lengths)
    sessions.set(
      nodes,
      await ort.InferenceSession.create(chainModel(shape, kind, nodes), { executionProviders: ['webgpu'] }),
    );
  const time = await slope(
    async (nodes) => {
      const start = performance.now();
      await sessions.get(nodes)!.run(feeds);
      return performance.now() - start;
    },
    lengths,
    rounds,
  );
  for (const session of sessions.values()) await session.release();
  return time;
}
