/** Models of a few nodes for the tests of the command line, verification and calibration. */
import proto from 'onnx-proto';
import { RandomNumbers } from '../../converter/data/random-numbers.js';

type Node = proto.onnx.INodeProto;
type Attribute = proto.onnx.IAttributeProto;

export interface SmallModel {
  /** Layers of self-attention with a residual sum. */
  readonly layers?: number;
  readonly heads?: number;
  readonly headSize?: number;
  readonly activation?: 'Softmax' | 'Sigmoid';
  /** Multiplies the query weights, of every layer or of each: larger makes attention more peaked. */
  readonly sharpness?: number | readonly number[];
  readonly causal?: boolean;
  /** Between layers, normalised rows keep only what rounding at the 18th binary place cuts off: the last digits decide. */
  readonly rounds?: boolean;
  readonly seed?: number;
}

const float = (name: string, dims: number[], values: ArrayLike<number>): proto.onnx.ITensorProto => ({
  name,
  dims,
  dataType: 1,
  rawData: new Uint8Array(Float32Array.from(values).buffer),
});

const ints = (name: string, values: number[]): proto.onnx.ITensorProto => ({
  name,
  dims: [values.length],
  dataType: 7,
  rawData: new Uint8Array(BigInt64Array.from(values, BigInt).buffer),
});

const value = (name: string, dims: (number | string)[], elemType = 1): proto.onnx.IValueInfoProto => ({
  name,
  type: {
    tensorType: {
      elemType,
      shape: { dim: dims.map((dim) => (typeof dim === 'string' ? { dimParam: dim } : { dimValue: dim })) },
    },
  },
});

const perm = (order: number[]): Attribute[] => [{ name: 'perm', type: 7, ints: order }];

/** Self-attention over `x` `[batch, length, heads * headSize]`, output `y` of the same shape. */
export function attentionModel({
  layers = 1,
  heads = 2,
  headSize = 4,
  activation = 'Softmax',
  sharpness = 1,
  causal = false,
  rounds = false,
  seed = 1,
}: SmallModel = {}): Uint8Array {
  const width = heads * headSize;
  const random = new RandomNumbers(seed);
  const node: Node[] = [];
  const initializer: proto.onnx.ITensorProto[] = [
    ints('split', [0, 0, heads, headSize]),
    ints('join', [0, 0, width]),
    float('scale', [], [1 / Math.sqrt(headSize)]),
  ];
  const add = (opType: string, input: string[], output: string, attribute: Attribute[] = []): string => {
    node.push({ opType, name: output, input, output: [output], attribute });
    return output;
  };
  const weight = (name: string, factor: number): string => {
    const values = Float32Array.from(
      { length: width * width },
      () => (factor * random.normal()) / Math.sqrt(width),
    );
    initializer.push(float(name, [width, width], values));
    return name;
  };
  if (rounds) {
    const flat = (name: string, number: number): proto.onnx.ITensorProto =>
      float(name, [width], new Array<number>(width).fill(number));
    initializer.push(float('fine', [], [2 ** 18]), float('two', [], [2]), float('small', [], [1e-5]));
    initializer.push(flat('gamma', 1), flat('beta', 0));
  }
  let x = 'x';
  for (let layer = 0; layer < layers; layer++) {
    const at = (name: string): string => `${name}_${layer}`;
    const queryFactor = typeof sharpness === 'number' ? sharpness : sharpness[layer]!;
    const [q, k, v] = ['q', 'k', 'v'].map((name) => {
      const rows = add(
        'MatMul',
        [x, weight(at(`w${name}`), name === 'q' ? queryFactor : 1)],
        at(`${name}_rows`),
      );
      const split = add('Reshape', [rows, 'split'], at(`${name}_split`));
      return add('Transpose', [split], at(name), perm(name === 'k' ? [0, 2, 3, 1] : [0, 2, 1, 3]));
    }) as [string, string, string];
    let scores = add('Mul', [add('MatMul', [q, k], at('product')), 'scale'], at('scaled'));
    if (causal) scores = add('Add', [scores, causalMask(layer, add, initializer)], at('masked'));
    const weights = add(
      activation,
      [scores],
      at('weights'),
      activation === 'Softmax' ? [{ name: 'axis', type: 2, i: -1 }] : [],
    );
    const turned = add(
      'Transpose',
      [add('MatMul', [weights, v], at('attended'))],
      at('turned'),
      perm([0, 2, 1, 3]),
    );
    const out = add(
      'MatMul',
      [add('Reshape', [turned, 'join'], at('joined')), weight(at('wo'), 1)],
      at('out'),
    );
    x = add('Add', [x, out], layer === layers - 1 ? 'y' : at('x_next'));
    if (!rounds || layer === layers - 1) continue;
    const last: Attribute[] = [{ name: 'axes', type: 7, ints: [-1] }];
    const centred = add('Sub', [x, add('ReduceMean', [x], at('mean'), last)], at('centred'));
    const variance = add('ReduceMean', [add('Pow', [centred, 'two'], at('square'))], at('variance'), last);
    const deviation = add('Sqrt', [add('Add', [variance, 'small'], at('above_0'))], at('deviation'));
    const scaled = add(
      'Mul',
      [add('Div', [centred, deviation], at('normalised')), 'gamma'],
      at('scaled_row'),
    );
    const fine = add('Mul', [add('Add', [scaled, 'beta'], at('norm')), 'fine'], at('fine'));
    x = add('Sub', [fine, add('Round', [fine], at('rounded'))], at('rest'));
  }
  return encode(
    node,
    initializer,
    [value('x', ['batch', 'length', width])],
    [value('y', ['batch', 'length', width])],
  );
}

/** -1e9 above the diagonal, computed from the length at run time. */
function causalMask(
  layer: number,
  add: (opType: string, input: string[], output: string, attribute?: Attribute[]) => string,
  initializer: proto.onnx.ITensorProto[],
): string {
  if (layer > 0) return 'causal_mask';
  initializer.push(ints('one_axis', [1]), float('minus', [], [-1e9]), float('one', [1], [1]));
  const length = add('Slice', [add('Shape', ['x'], 'x_shape'), 'one_axis', 'two_axis'], 'length_only');
  initializer.push(ints('two_axis', [2]));
  const square = add('Concat', [length, length], 'square', [{ name: 'axis', type: 2, i: 0 }]);
  const ones = add('Expand', ['one', square], 'ones');
  initializer.push({ ...ints('first_diagonal', [1]), dims: [] });
  const above = add('Trilu', [ones, 'first_diagonal'], 'above', [{ name: 'upper', type: 2, i: 1 }]);
  return add('Mul', [above, 'minus'], 'causal_mask');
}

/** A linear classifier with a softmax: nothing to convert. */
export function classifierModel(): Uint8Array {
  const values = Float32Array.from({ length: 12 }, (_, i) => Math.sin(i));
  return encode(
    [
      { opType: 'MatMul', name: 'product', input: ['x', 'w'], output: ['logits'] },
      {
        opType: 'Softmax',
        name: 'softmax',
        input: ['logits'],
        output: ['y'],
        attribute: [{ name: 'axis', type: 2, i: -1 }],
      },
    ],
    [float('w', [4, 3], values)],
    [value('x', ['batch', 4])],
    [value('y', ['batch', 3])],
  );
}

/** Well-formed protobuf that adds a float to an integer: ONNX Runtime refuses it. */
export function mistypedModel(): Uint8Array {
  return encode(
    [
      { opType: 'Add', name: 'sum', input: ['x', 'n'], output: ['s'] },
      { opType: 'Softmax', name: 'softmax', input: ['s'], output: ['p'] },
      { opType: 'MatMul', name: 'attend', input: ['p', 'x'], output: ['y'] },
    ],
    [ints('n', [1, 2, 3, 4])],
    [value('x', [4, 4])],
    [value('y', [4, 4])],
  );
}

function encode(
  node: Node[],
  initializer: proto.onnx.ITensorProto[],
  input: proto.onnx.IValueInfoProto[],
  output: proto.onnx.IValueInfoProto[],
): Uint8Array {
  return proto.onnx.ModelProto.encode({
    irVersion: 8,
    producerName: 'small-models',
    opsetImport: [{ domain: '', version: 17 }],
    graph: { name: 'small', node, initializer, input, output },
  }).finish();
}

/** The model with its larger constants in a file beside it. */
export function withExternalData(
  model: Uint8Array,
  location: string,
): { model: Uint8Array; data: Uint8Array } {
  const decoded = proto.onnx.ModelProto.decode(model);
  const parts: Uint8Array[] = [];
  let offset = 0;
  for (const tensor of decoded.graph!.initializer!) {
    const bytes = tensor.rawData;
    if (!bytes || bytes.length < 100) continue;
    parts.push(Uint8Array.from(bytes));
    tensor.externalData = [
      { key: 'location', value: location },
      { key: 'offset', value: String(offset) },
      { key: 'length', value: String(bytes.length) },
    ];
    tensor.dataLocation = proto.onnx.TensorProto.DataLocation.EXTERNAL;
    delete tensor.rawData;
    offset += bytes.length;
  }
  return { model: proto.onnx.ModelProto.encode(decoded).finish(), data: Buffer.concat(parts) };
}

/** The attention model inside a branch that is always taken; the other branch gives `x` itself. */
export function nestedModel(options: SmallModel = {}): Uint8Array {
  const inner = proto.onnx.ModelProto.decode(attentionModel(options));
  const { node, initializer, input, output } = inner.graph!;
  const result = (name: string): proto.onnx.IValueInfoProto => ({ ...output![0]!, name });
  const taken = { name: 'taken', node: node!, initializer: initializer!, output: [result('y')] };
  const other = {
    name: 'other',
    node: [{ opType: 'Identity', name: 'same', input: ['x'], output: ['x_same'] }],
    output: [result('x_same')],
  };
  const branch = (name: string, g: proto.onnx.IGraphProto): Attribute => ({ name, type: 5, g });
  const choice: Node = {
    opType: 'If',
    name: 'choice',
    input: ['always'],
    output: ['result'],
    attribute: [branch('then_branch', taken), branch('else_branch', other)],
  };
  const always = { name: 'always', dims: [], dataType: 9, rawData: Uint8Array.of(1) };
  return encode([choice], [always], input!, [result('result')]);
}
