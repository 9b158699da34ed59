/**
 * A small vision transformer with softmax attention for 28 x 28 digits: 16 patches of 7 x 7, two pre-norm blocks of two
 * heads, mean over patches, ten classes. Its parameters, its forward pass for training, and its form as an ONNX model.
 */
import proto from 'onnx-proto';
import { RandomNumbers } from '../../converter/data/random-numbers.js';
import { Matrix, Tape } from './autograd.js';
import { PIXELS, SIDE } from './digits-data.js';

const PATCH = 7;
const GRID = SIDE / PATCH;
export const TOKENS = GRID * GRID;
const WIDTH = 32;
const HEADS = 2;
const HIDDEN = 64;
const CLASSES = 10;
const BLOCKS = 2;

export type Parameters = Readonly<Record<string, Matrix>>;

export function freshParameters(seed: number): Parameters {
  const random = new RandomNumbers(seed);
  const parameters: Record<string, Matrix> = {};
  const make = (name: string, rows: number, columns: number, value: () => number): void => {
    parameters[name] = new Matrix(rows, columns, Float32Array.from({ length: rows * columns }, value));
  };
  const linear = (name: string, inputs: number, outputs: number): void => {
    make(`${name}.weight`, inputs, outputs, () => random.normal() / Math.sqrt(inputs));
    make(`${name}.bias`, 1, outputs, () => 0);
  };
  const norm = (name: string): void => {
    make(`${name}.gain`, 1, WIDTH, () => 1);
    make(`${name}.shift`, 1, WIDTH, () => 0);
  };
  linear('embed', PATCH * PATCH, WIDTH);
  make('position', TOKENS, WIDTH, () => 0.1 * random.normal());
  for (let block = 0; block < BLOCKS; block++) {
    norm(`${block}.norm1`);
    linear(`${block}.qkv`, WIDTH, 3 * WIDTH);
    linear(`${block}.out`, WIDTH, WIDTH);
    norm(`${block}.norm2`);
    linear(`${block}.up`, WIDTH, HIDDEN);
    linear(`${block}.down`, HIDDEN, WIDTH);
  }
  norm('norm');
  linear('head', WIDTH, CLASSES);
  return parameters;
}

/** Images `[batch, 28 * 28]` as patches `[batch * 16, 49]`. */
export function patches(images: Float32Array): Matrix {
  const batch = images.length / PIXELS;
  const result = new Matrix(batch * TOKENS, PATCH * PATCH);
  for (let index = 0; index < images.length; index++) {
    const pixel = index % PIXELS;
    const [y, x] = [Math.floor(pixel / SIDE), pixel % SIDE];
    const token = Math.floor(y / PATCH) * GRID + Math.floor(x / PATCH);
    const row = Math.floor(index / PIXELS) * TOKENS + token;
    result.data[row * PATCH * PATCH + (y % PATCH) * PATCH + (x % PATCH)] = images[index]!;
  }
  return result;
}

/** Class scores `[batch, 10]`. */
export function forward(tape: Tape, p: Parameters, input: Matrix): Matrix {
  const linear = (x: Matrix, name: string): Matrix =>
    tape.linear(x, p[`${name}.weight`]!, p[`${name}.bias`]!);
  const norm = (x: Matrix, name: string): Matrix =>
    tape.layerNorm(x, p[`${name}.gain`]!, p[`${name}.shift`]!);
  let x = tape.addRepeated(linear(input, 'embed'), p['position']!);
  for (let block = 0; block < BLOCKS; block++) {
    const qkv = linear(norm(x, `${block}.norm1`), `${block}.qkv`);
    x = tape.addRepeated(x, linear(tape.attention(qkv, TOKENS, HEADS), `${block}.out`));
    const hidden = tape.relu(linear(norm(x, `${block}.norm2`), `${block}.up`));
    x = tape.addRepeated(x, linear(hidden, `${block}.down`));
  }
  return linear(tape.meanRows(norm(x, 'norm'), TOKENS), 'head');
}

/** The trained model: input `image` float32 `[batch, 1, 28, 28]`, output `scores` `[batch, 10]`. */
export function digitsModel(p: Parameters): Uint8Array {
  const nodes: proto.onnx.INodeProto[] = [];
  const initializer: proto.onnx.ITensorProto[] = [];
  const floats = (name: string, dims: number[], data: Float32Array): string => {
    initializer.push({
      name,
      dims,
      dataType: 1,
      rawData: new Uint8Array(data.buffer, data.byteOffset, data.byteLength),
    });
    return name;
  };
  const ints = (name: string, values: number[]): string => {
    initializer.push({
      name,
      dims: [values.length],
      dataType: 7,
      rawData: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
    });
    return name;
  };
  const node = (
    opType: string,
    input: string[],
    output: string,
    attribute: proto.onnx.IAttributeProto[] = [],
  ): string => {
    nodes.push({ opType, name: `${opType}:${output}`, input, output: [output], attribute });
    return output;
  };
  const matrix = (name: string): string => {
    const { rows, columns, data } = p[name]!;
    return floats(name, rows === 1 ? [columns] : [rows, columns], data);
  };
  const linear = (x: string, name: string): string =>
    node(
      'Add',
      [node('MatMul', [x, matrix(`${name}.weight`)], `${name}.product`), matrix(`${name}.bias`)],
      name,
    );
  const norm = (x: string, name: string): string =>
    node('LayerNormalization', [x, matrix(`${name}.gain`), matrix(`${name}.shift`)], name, [
      { name: 'epsilon', type: 1, f: 1e-5 },
    ]);
  const perm = (order: number[]): proto.onnx.IAttributeProto[] => [{ name: 'perm', type: 7, ints: order }];

  const cut = node('Reshape', ['image', ints('cut', [-1, GRID, PATCH, GRID, PATCH])], 'image.cut');
  const turned = node('Transpose', [cut], 'image.turned', perm([0, 1, 3, 2, 4]));
  const rows = node('Reshape', [turned, ints('patch', [-1, TOKENS, PATCH * PATCH])], 'image.patches');
  let x = node('Add', [linear(rows, 'embed'), matrix('position')], 'embedded');
  const headShape = ints('heads', [0, TOKENS, 3, HEADS, WIDTH / HEADS]);
  const joined = ints('joined', [0, TOKENS, WIDTH]);
  const scale = floats('scale', [], Float32Array.of(1 / Math.sqrt(WIDTH / HEADS)));
  for (let block = 0; block < BLOCKS; block++) {
    const at = (name: string): string => `${block}.${name}`;
    const qkv = node('Reshape', [linear(norm(x, at('norm1')), at('qkv')), headShape], at('qkv.heads'));
    const [q, k, v] = ['q', 'k', 'v'].map((name, index) => {
      const part = node('Gather', [qkv, ints(at(`${name}.index`), [index])], at(`${name}.part`), [
        { name: 'axis', type: 2, i: 2 },
      ]);
      const squeezed = node('Squeeze', [part, ints(at(`${name}.axis`), [2])], at(`${name}.rows`));
      return node('Transpose', [squeezed], at(name), perm(name === 'k' ? [0, 2, 3, 1] : [0, 2, 1, 3]));
    }) as [string, string, string];
    const scores = node('Mul', [node('MatMul', [q, k], at('product')), scale], at('scores'));
    const weights = node('Softmax', [scores], at('weights'), [{ name: 'axis', type: 2, i: -1 }]);
    const heads = node(
      'Transpose',
      [node('MatMul', [weights, v], at('attended'))],
      at('turned'),
      perm([0, 2, 1, 3]),
    );
    x = node('Add', [x, linear(node('Reshape', [heads, joined], at('attention')), at('out'))], at('middle'));
    const hidden = node('Relu', [linear(norm(x, at('norm2')), at('up'))], at('hidden'));
    x = node('Add', [x, linear(hidden, at('down'))], at('block'));
  }
  const mean = node('ReduceMean', [norm(x, 'norm')], 'mean', [
    { name: 'axes', type: 7, ints: [1] },
    { name: 'keepdims', type: 2, i: 0 },
  ]);
  node('Add', [node('MatMul', [mean, matrix('head.weight')], 'head.product'), matrix('head.bias')], 'scores');
  const value = (name: string, dims: (number | string)[]): proto.onnx.IValueInfoProto => ({
    name,
    type: {
      tensorType: {
        elemType: 1,
        shape: { dim: dims.map((dim) => (typeof dim === 'string' ? { dimParam: dim } : { dimValue: dim })) },
      },
    },
  });
  return proto.onnx.ModelProto.encode({
    irVersion: 8,
    producerName: 'bench/fidelity/train-digits.ts',
    opsetImport: [{ domain: '', version: 17 }],
    graph: {
      name: 'digits',
      node: nodes,
      initializer,
      input: [value('image', ['batch', 1, SIDE, SIDE])],
      output: [value('scores', ['batch', CLASSES])],
    },
  }).finish();
}
