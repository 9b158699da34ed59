/**
 * Every way to run attention in ONNX Runtime that is compared, each as a model in the layout that suits it best.
 *
 * A model holds a chain of calls, the output of one being the query of the next, so that the cost of entering a session
 * is small against the work.
 */
import * as ort from 'onnxruntime-node';
import type { Tensor } from '../../op/tensor.js';
import { numberToFloat16 } from '../../op/half.js';
import { model, type Node, type ValueType } from './model-builder.js';
import { isVisible, maskedFrom, type Shape } from './shapes.js';
import { arrange, expandHeads, keyMask, ortTensor, randomData, type Data, type Layout } from './tensors.js';

export interface Contender {
  readonly name: string;
  readonly activation: 'softmax' | 'sigmoid';
  readonly model: Uint8Array;
  readonly feeds: Record<string, ort.Tensor>;
  /** Of the output, and of the query. */
  readonly layout: Layout;
}

type Feeds = Record<string, ort.Tensor>;
interface Parts {
  readonly feeds: Feeds;
  readonly constants?: Record<string, Tensor>;
  readonly outputDims: readonly number[];
  /** One call: from `query` to `output`. */
  call(query: string, output: string, tag: string): Node[];
}

export function contenders(shape: Shape, chain: number): Contender[] {
  const data = randomData(shape);
  const build = (
    name: string,
    activation: Contender['activation'],
    layout: Layout,
    parts: Parts,
  ): Contender => ({
    name,
    activation,
    layout,
    feeds: parts.feeds,
    model: chainModel(shape, parts, chain),
  });
  const all = [
    build('softmax', 'softmax', 'heads-first', decomposed(shape, data, 'softmax')),
    build('sigmoid', 'sigmoid', 'heads-first', decomposed(shape, data, 'sigmoid')),
  ];
  // MultiHeadAttention has no window.
  if (typeof shape.visible !== 'object')
    all.push(build('MultiHeadAttention', 'softmax', 'rows-first', multiHeadAttention(shape, data)));
  all.push(
    build('Attention', 'softmax', 'heads-first', onnxAttention(shape, data)),
    build('ours', 'sigmoid', 'heads-first', ours(shape, data, 'heads-first')),
    build('ours [B,N,H*D]', 'sigmoid', 'rows-first', ours(shape, data, 'rows-first')),
  );
  return all;
}

/** The contenders that are not this package. */
export function isOther(contender: { readonly name: string }): boolean {
  return !contender.name.startsWith('ours');
}

function chainModel(shape: Shape, parts: Parts, chain: number): Uint8Array {
  const { feeds, constants = {}, outputDims } = parts;
  const types = { float32: 'float', float16: 'float16', int32: 'int32', int64: 'int64' } as const;
  const inputs: Record<string, ValueType> = {};
  for (const [name, tensor] of Object.entries(feeds))
    inputs[name] = { type: types[tensor.type as keyof typeof types], dims: tensor.dims };
  const nodes: Node[] = [];
  for (let i = 0; i < chain; i++)
    nodes.push(...parts.call(i === 0 ? 'q' : `y${i - 1}`, i === chain - 1 ? 'y' : `y${i}`, `${i}`));
  return model(inputs, { y: { type: shape.type, dims: outputDims } }, constants, nodes);
}

function queryDims(shape: Shape): [number, number, number, number] {
  return [shape.batch, shape.heads, shape.queryLength, shape.headSize];
}

function keyDims(shape: Shape, heads = shape.kvHeads): [number, number, number, number] {
  return [shape.batch, heads, shape.keyLength, shape.headSize];
}

function tensorOf(shape: Shape, { dims, data }: { dims: number[]; data: Float32Array }): ort.Tensor {
  return ortTensor(shape, dims, data);
}

function floats(shape: Shape, dims: readonly number[], values: readonly number[] | Float32Array): Tensor {
  if (shape.type === 'float') return { type: 'float', dims, data: Float32Array.from(values) };
  return { type: 'float16', dims, data: Uint16Array.from(values, numberToFloat16) };
}

/** `[Nq,Nk]` of 0 and a large negative number, where rows see only some keys. */
function visibilityMask(shape: Shape): Record<string, Tensor> {
  if (shape.visible === 'all') return {};
  const { queryLength, keyLength } = shape;
  const values = new Float32Array(queryLength * keyLength);
  for (let i = 0; i < queryLength; i++)
    for (let j = 0; j < keyLength; j++) values[i * keyLength + j] = isVisible(shape, i, j) ? 0 : -30000;
  return { visible: floats(shape, [queryLength, keyLength], values) };
}

function maskFeed(shape: Shape): Feeds {
  if (!shape.keyMask) return {};
  return { mask: ortTensor(shape, [shape.batch, 1, 1, shape.keyLength], keyMask(shape)) };
}

/** MatMul, activation, MatMul; grouped heads as rows of their kv head's matrix, so that nothing is repeated. */
function decomposed(shape: Shape, data: Data, activation: 'softmax' | 'sigmoid'): Parts {
  const { batch, heads, kvHeads, queryLength, headSize, keyLength } = shape;
  const rows = (heads / kvHeads) * queryLength;
  const grouped: [number, number, number, number] = [batch, kvHeads, rows, headSize];
  const bias = visibilityMask(shape);
  const scalars = {
    scale: floats(shape, [], [1 / Math.sqrt(headSize)]),
    bias: floats(shape, [], [-Math.log(keyLength)]),
  };
  return {
    feeds: {
      q: tensorOf(shape, arrange(data.q, grouped, 'heads-first')),
      k: tensorOf(shape, arrange(data.k, keyDims(shape), 'transposed')),
      v: tensorOf(shape, arrange(data.v, keyDims(shape), 'heads-first')),
      ...maskFeed(shape),
    },
    constants: { ...bias, scale: scalars.scale, ...(activation === 'sigmoid' ? { bias: scalars.bias } : {}) },
    outputDims: grouped,
    call: (query, output, tag) => {
      const nodes: Node[] = [
        { op: 'MatMul', inputs: [query, 'k'], outputs: [`product${tag}`] },
        { op: 'Mul', inputs: [`product${tag}`, 'scale'], outputs: [`scores${tag}`] },
      ];
      let scores = `scores${tag}`;
      const add = (addend: string): void => {
        nodes.push({ op: 'Add', inputs: [scores, addend], outputs: [`${scores}+${addend}`] });
        scores = `${scores}+${addend}`;
      };
      if ('visible' in bias) add('visible');
      if (shape.keyMask) add('mask');
      if (activation === 'sigmoid') add('bias');
      const op = activation === 'softmax' ? 'Softmax' : 'Sigmoid';
      const attributes: Node['attributes'] = activation === 'softmax' ? { axis: -1 } : {};
      nodes.push({ op, inputs: [scores], outputs: [`weights${tag}`], attributes });
      nodes.push({ op: 'MatMul', inputs: [`weights${tag}`, 'v'], outputs: [output] });
      return nodes;
    },
  };
}

/** Without masks ONNX Runtime runs it as flash attention. It has no grouped heads: K and V come repeated. */
function multiHeadAttention(shape: Shape, data: Data): Parts {
  const dims = keyDims(shape, shape.heads);
  const feeds: Feeds = {
    q: tensorOf(shape, arrange(data.q, queryDims(shape), 'rows-first')),
    k: tensorOf(shape, arrange(expandHeads(data.k, shape), dims, 'rows-first')),
    v: tensorOf(shape, arrange(expandHeads(data.v, shape), dims, 'rows-first')),
  };
  if (shape.keyMask) {
    const { batch, keyLength } = shape;
    const takesPart = Int32Array.from({ length: batch * keyLength }, (_, i) =>
      i % keyLength < maskedFrom(shape) ? 1 : 0,
    );
    feeds['mask'] = new ort.Tensor('int32', takesPart, [batch, keyLength]);
  }
  return {
    feeds,
    outputDims: [shape.batch, shape.queryLength, shape.heads * shape.headSize],
    call: (query, output) => [
      {
        op: 'MultiHeadAttention',
        domain: 'com.microsoft',
        inputs: [query, 'k', 'v', ...(shape.keyMask ? ['', 'mask'] : [])],
        outputs: [output],
        attributes: { num_heads: shape.heads, ...(shape.visible === 'causal' ? { unidirectional: 1 } : {}) },
      },
    ],
  };
}

/** The standard operator of opset 23. ONNX Runtime wants a mask's last two dimensions whole. */
function onnxAttention(shape: Shape, data: Data): Parts {
  const windowed = typeof shape.visible === 'object';
  const { batch, queryLength, keyLength } = shape;
  const mask: Feeds = {};
  if (shape.keyMask) {
    const keys = keyMask(shape);
    const whole = new Float32Array(batch * queryLength * keyLength);
    for (let row = 0; row < batch * queryLength; row++) {
      const b = Math.floor(row / queryLength);
      whole.set(keys.subarray(b * keyLength, (b + 1) * keyLength), row * keyLength);
    }
    mask['mask'] = ortTensor(shape, [batch, 1, queryLength, keyLength], whole);
  }
  return {
    feeds: { ...headsFirstFeeds(shape, data), ...mask },
    constants: windowed ? visibilityMask(shape) : {},
    outputDims: queryDims(shape),
    call: (query, output) => [
      {
        op: 'Attention',
        inputs: [query, 'k', 'v', ...(windowed ? ['visible'] : shape.keyMask ? ['mask'] : [])],
        outputs: [output],
        attributes: { is_causal: shape.visible === 'causal' ? 1 : 0 },
      },
    ],
  };
}

function headsFirstFeeds(shape: Shape, data: Data): Feeds {
  return {
    q: tensorOf(shape, arrange(data.q, queryDims(shape), 'heads-first')),
    k: tensorOf(shape, arrange(data.k, keyDims(shape), 'heads-first')),
    v: tensorOf(shape, arrange(data.v, keyDims(shape), 'heads-first')),
  };
}

function ours(shape: Shape, data: Data, layout: 'heads-first' | 'rows-first'): Parts {
  const { batch, heads, kvHeads, queryLength, headSize, visible } = shape;
  const feeds: Feeds = {
    q: tensorOf(shape, arrange(data.q, queryDims(shape), layout)),
    k: tensorOf(shape, arrange(data.k, keyDims(shape), layout)),
    v: tensorOf(shape, arrange(data.v, keyDims(shape), layout)),
    ...maskFeed(shape),
  };
  return {
    feeds,
    outputDims: layout === 'heads-first' ? queryDims(shape) : [batch, queryLength, heads * headSize],
    call: (query, output) => [
      {
        op: 'SigmoidAttention',
        domain: 'ort.sigmoid',
        inputs: [query, 'k', 'v', ...(shape.keyMask ? ['mask'] : [])],
        outputs: [output],
        attributes: {
          scale: { float: 1 / Math.sqrt(headSize) },
          bias: { float: 0 },
          bias_mode: 'neg_log_total',
          is_causal: visible === 'all' ? 0 : 1,
          left_window_size: typeof visible === 'object' ? visible.window : -1,
          right_window_size: -1,
          softcap: { float: 0 },
          normalize: 0,
          q_num_heads: heads,
          kv_num_heads: kvHeads,
        },
      },
    ],
  };
}
