/** ONNX Runtime's own matrix product, 1024 x 1024 x 1024 in float: the yardstick for what the processor can do. */
import * as ort from 'onnxruntime-node';
import { model } from './model-builder.js';
import { openSession, type Competitor } from './timing.js';

const SIZE = 1024;
export const SGEMM_FLOPS = 2 * SIZE ** 3;

export async function sgemm(threads: number): Promise<Competitor> {
  const matrix = { type: 'float', dims: [SIZE, SIZE] } as const;
  const bytes = model({ a: matrix, b: matrix }, { y: matrix }, {}, [
    { op: 'MatMul', inputs: ['a', 'b'], outputs: ['y'] },
  ]);
  const values = Float32Array.from({ length: SIZE * SIZE }, (_, i) => ((i * 7919) % 1000) / 1000 - 0.5);
  const tensor = new ort.Tensor('float32', values, [SIZE, SIZE]);
  return { name: 'sgemm', session: await openSession(bytes, threads), feeds: { a: tensor, b: tensor } };
}
