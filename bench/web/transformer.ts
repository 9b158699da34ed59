/**
 * Transformers as exporters write them, attention spelled out in ONNX operators: what a user converts. All layers share one set
 * of random weights, so that the file stays small and every layer does its full work.
 */

import proto from 'onnx-proto';

const { AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, ValueInfoProto } =
  proto.onnx;
const { DataType } = proto.onnx.TensorProto;
const { AttributeType } = proto.onnx.AttributeProto;

export interface TransformerShape {
  readonly layers: number;
  readonly length: number;
  readonly heads: number;
  readonly headSize: number;
  readonly causal: boolean;
  /** `sum`: q + v instead of attention, so that nothing but the layer around it is left. */
  readonly attention: 'softmax' | 'sum';
}

const EXPANSION = 4;

/** x [1,N,W] -> y [1,W], the mean of the last layer's rows: what comes back to the host is small. */
export function transformer(shape: TransformerShape): Uint8Array {
  const { layers, length, heads, headSize, causal } = shape;
  const width = heads * headSize;
  const random = uniform(7);
  const matrix = (name: string, rows: number, columns: number): proto.onnx.ITensorProto => {
    const bound = Math.sqrt(3 / rows);
    return tensor(
      name,
      [rows, columns],
      Float32Array.from({ length: rows * columns }, () => bound * random()),
    );
  };
  const initializer = [
    ...['w_q', 'w_k', 'w_v', 'w_o'].map((name) => matrix(name, width, width)),
    matrix('w_up', width, EXPANSION * width),
    matrix('w_down', EXPANSION * width, width),
    tensor('norm_scale', [width], new Float32Array(width).fill(1)),
    tensor('norm_shift', [width], new Float32Array(width)),
    tensor('scale', [], Float32Array.of(1 / Math.sqrt(headSize))),
    tensor('sqrt2', [], Float32Array.of(Math.SQRT2)),
    tensor('one', [], Float32Array.of(1)),
    tensor('half', [], Float32Array.of(0.5)),
    integers('split_heads', [1, length, heads, headSize]),
    integers('join_heads', [1, length, width]),
    ...(causal ? [tensor('mask', [1, 1, length, length], causalMask(length))] : []),
  ];
  const node = Array.from({ length: layers }, (_, layer) => block(shape, layer)).flat();
  node.push(apply('ReduceMean', [`x${layers}`], 'y', { axes: [1], keepdims: 0 }));
  return ModelProto.encode(
    ModelProto.create({
      irVersion: 8,
      producerName: 'bench',
      opsetImport: [OperatorSetIdProto.create({ domain: '', version: 17 })],
      graph: GraphProto.create({
        name: 'transformer',
        node,
        initializer,
        input: [valueInfo('x0', [1, length, width])],
        output: [valueInfo('y', [1, width])],
      }),
    }),
  ).finish();
}

function block({ causal, attention }: TransformerShape, layer: number): proto.onnx.NodeProto[] {
  const at = (name: string): string => `${name}_${layer}`;
  const heads = (name: string, perm: number[]): proto.onnx.NodeProto[] => [
    apply('MatMul', [at('n'), `w_${name}`], at(`${name}_flat`)),
    apply('Reshape', [at(`${name}_flat`), 'split_heads'], at(`${name}_split`)),
    apply('Transpose', [at(`${name}_split`)], at(name), { perm }),
  ];
  const masked = causal ? [apply('Add', [at('scaled'), 'mask'], at('masked'))] : [];
  const mixed =
    attention === 'sum'
      ? [
          ...heads('q', [0, 2, 1, 3]),
          ...heads('v', [0, 2, 1, 3]),
          apply('Add', [at('q'), at('v')], at('mix')),
        ]
      : [
          ...heads('q', [0, 2, 1, 3]),
          ...heads('k', [0, 2, 3, 1]),
          ...heads('v', [0, 2, 1, 3]),
          apply('MatMul', [at('q'), at('k')], at('scores')),
          apply('Mul', [at('scores'), 'scale'], at('scaled')),
          ...masked,
          apply('Softmax', [causal ? at('masked') : at('scaled')], at('weights'), { axis: -1 }),
          apply('MatMul', [at('weights'), at('v')], at('mix')),
        ];
  return [
    apply('LayerNormalization', [`x${layer}`, 'norm_scale', 'norm_shift'], at('n')),
    ...mixed,
    apply('Transpose', [at('mix')], at('mix_split'), { perm: [0, 2, 1, 3] }),
    apply('Reshape', [at('mix_split'), 'join_heads'], at('mix_flat')),
    apply('MatMul', [at('mix_flat'), 'w_o'], at('o')),
    apply('Add', [`x${layer}`, at('o')], at('r')),
    apply('LayerNormalization', [at('r'), 'norm_scale', 'norm_shift'], at('m')),
    apply('MatMul', [at('m'), 'w_up'], at('up')),
    apply('Div', [at('up'), 'sqrt2'], at('g0')),
    apply('Erf', [at('g0')], at('g1')),
    apply('Add', [at('g1'), 'one'], at('g2')),
    apply('Mul', [at('up'), at('g2')], at('g3')),
    apply('Mul', [at('g3'), 'half'], at('act')),
    apply('MatMul', [at('act'), 'w_down'], at('down')),
    apply('Add', [at('r'), at('down')], `x${layer + 1}`),
  ];
}

function causalMask(length: number): Float32Array {
  return Float32Array.from({ length: length * length }, (_, n) =>
    n % length > Math.floor(n / length) ? -3.4028234663852886e38 : 0,
  );
}

function apply(
  opType: string,
  input: string[],
  output: string,
  attributes: Record<string, number | number[]> = {},
): proto.onnx.NodeProto {
  return NodeProto.create({
    name: `${opType}/${output}`,
    opType,
    input,
    output: [output],
    attribute: Object.entries(attributes).map(([name, value]) =>
      typeof value === 'number'
        ? AttributeProto.create({ name, type: AttributeType.INT, i: value })
        : AttributeProto.create({ name, type: AttributeType.INTS, ints: value }),
    ),
  });
}

function tensor(name: string, dims: number[], values: Float32Array): proto.onnx.ITensorProto {
  return TensorProto.create({ name, dims, dataType: DataType.FLOAT, rawData: new Uint8Array(values.buffer) });
}

function integers(name: string, values: number[]): proto.onnx.ITensorProto {
  const data = BigInt64Array.from(values, BigInt);
  return TensorProto.create({
    name,
    dims: [values.length],
    dataType: DataType.INT64,
    rawData: new Uint8Array(data.buffer),
  });
}

function valueInfo(name: string, dims: number[]): proto.onnx.ValueInfoProto {
  return ValueInfoProto.create({
    name,
    type: {
      tensorType: { elemType: DataType.FLOAT, shape: { dim: dims.map((dimValue) => ({ dimValue })) } },
    },
  });
}

/** Numbers in [-1, 1) from a linear congruential generator. */
function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 31 - 1;
  };
}
