/** A softmax attention with open batch and length, the model that the documents call `model.onnx`. */
import { zipSync } from 'fflate';
import proto from 'onnx-proto';
import { numbers } from '../node/models.js';
import { npy } from '../data/npy-writer.js';

const { ModelProto } = proto.onnx;

export function sampleModel(): Uint8Array {
  const dims = [{ dimParam: 'batch' }, { dimValue: 4 }, { dimParam: 'length' }, { dimValue: 16 }];
  const value = (name: string): object => ({
    name,
    type: { tensorType: { elemType: 1, shape: { dim: dims } } },
  });
  const node = [
    {
      opType: 'Transpose',
      input: ['k'],
      output: ['kt'],
      attribute: [{ name: 'perm', type: 7, ints: [0, 1, 3, 2] }],
    },
    { opType: 'MatMul', input: ['q', 'kt'], output: ['product'] },
    { opType: 'Mul', input: ['product', 'scale'], output: ['scores'] },
    {
      opType: 'Softmax',
      input: ['scores'],
      output: ['weights'],
      attribute: [{ name: 'axis', type: 2, i: -1 }],
    },
    { opType: 'MatMul', input: ['weights', 'v'], output: ['y'] },
  ].map((entry) => ({ ...entry, name: entry.output[0] }));
  const initializer = [{ name: 'scale', dims: [], dataType: 1, floatData: [0.25] }];
  const graph = {
    name: 'sample',
    node,
    initializer,
    input: ['q', 'k', 'v'].map(value),
    output: [value('y')],
  };
  const message = { irVersion: 8, opsetImport: [{ domain: '', version: 17 }], graph };
  return ModelProto.encode(ModelProto.fromObject(message)).finish();
}

/** Inputs of one run of it, as an .npz archive. */
export function sampleInputs(seed: number): Uint8Array {
  const dims = [1, 4, 6 + seed, 16];
  const count = dims.reduce((a, b) => a * b, 1);
  const array = (offset: number): Uint8Array => npy('<f4', dims, numbers(count, 3 * seed + offset));
  return zipSync({ 'q.npy': array(1), 'k.npy': array(2), 'v.npy': array(3) });
}
