/** A softmax attention with open batch and length, the model that the documents call `model.onnx`. */
import proto from 'onnx-proto';

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
