/**
 * Every way to run attention in ONNX Runtime that is compared, each in every layout that it takes without transposing whole
 * tensors: what counts is the layout that suits it best. (Its K transposed beforehand is such a layout of the decomposed ones;
 * as stored, ONNX Runtime fuses the transposition into the product.)
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
  /** The family, and the layout in brackets. */
  readonly name: string;
  readonly family: Family;
  readonly activation: 'softmax' | 'sigmoid';
  readonly model: Uint8Array;
  readonly feeds: Record<string, ort.Tensor>;
  /** Of the output, and of the query. */
  readonly layout: Layout;
}

export type Family = 'softmax' | 'sigmoid' | 'MultiHeadAttention' | 'Attention' | 'ours';

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
  const all: Contender[] = [];
  const add = (
    family: Family,
    variant: string,
    activation: Contender['activation'],
    layout: Layout,
    parts: Parts,
  ): void => {
    all.push({
      name: `${family} [${variant}]`,
      family,
      activation,
      layout,
      feeds: parts.feeds,
      model: chainModel(shape, parts, chain),
    });
  };
  for (const activation of ['softmax', 'sigmoid'] as const) {
    add(
      activation,
      'K B,H,D,N',
      activation,
      'heads-first',
      decomposed(shape, data, activation, 'transposed'),
    );
    add(
      activation,
      'K B,H,N,D',
      activation,
      'heads-first',
      decomposed(shape, data, activation, 'heads-first'),
    );
  }
  // MultiHeadAttention has no window.
  if (typeof shape.visible !== 'object') {
    for (const [variant, layout] of LAYOUTS)
      add(
        'MultiHeadAttention',
        `K V ${variant}`,
        'softmax',
        'rows-first',
        multiHeadAttention(shape, data, layout),
      );
  }
  for (const [variant, layout] of LAYOUTS) {
    add('Attention', variant, 'softmax', layout, onnxAttention(shape, data, layout));
    add('ours', variant, 'sigmoid', layout, ours(shape, data, layout));
  }
  return all;
}

const LAYOUTS = [
  ['B,H,N,D', 'heads-first'],
  ['B,N,H*D', 'rows-first'],
] as const;

/** The contenders that are not this package. */
export function isOther(contender: { readonly name: string }): boolean {
  return !isOurs(contender);
}

export function isOurs(contender: { readonly name: string }): boolean {
  return contender.name.startsWith('ours');
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
function decomposed(
  shape: Shape,
  data: Data,
  activation: 'softmax' | 'sigmoid',
  keyLayout: 'transposed' | 'heads-first',
): Parts {
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
      k: tensorOf(shape, arrange(data.k, keyDims(shape), keyLayout)),
      v: tensorOf(shape, arrange(data.v, keyDims(shape), 'heads-first')),
      ...maskFeed(shape),
    },
    constants: { ...bias, scale: scalars.scale, ...(activation === 'sigmoid' ? { bias: scalars.bias } : {}) },
    outputDims: grouped,
    call: (query, output, tag) => {
      const nodes: Node[] = [];
      let key = 'k';
      if (keyLayout === 'heads-first') {
        key = `k${tag}`;
        nodes.push({ op: 'Transpose', inputs: ['k'], outputs: [key], attributes: { perm: [0, 1, 3, 2] } });
      }
      nodes.push(
        { op: 'MatMul', inputs: [query, key], outputs: [`product${tag}`] },
        { op: 'Mul', inputs: [`product${tag}`, 'scale'], outputs: [`scores${tag}`] },
      );
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
function multiHeadAttention(shape: Shape, data: Data, keyLayout: 'heads-first' | 'rows-first'): Parts {
  const dims = keyDims(shape, shape.heads);
  const feeds: Feeds = {
    q: tensorOf(shape, arrange(data.q, queryDims(shape), 'rows-first')),
    k: tensorOf(shape, arrange(expandHeads(data.k, shape), dims, keyLayout)),
    v: tensorOf(shape, arrange(expandHeads(data.v, shape), dims, keyLayout)),
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
function onnxAttention(shape: Shape, data: Data, layout: 'heads-first' | 'rows-first'): Parts {
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
    feeds: { ...threeFeeds(shape, data, layout), ...mask },
    constants: windowed ? visibilityMask(shape) : {},
    outputDims: outputDims(shape, layout),
    call: (query, output) => [
      {
        op: 'Attention',
        inputs: [query, 'k', 'v', ...(windowed ? ['visible'] : shape.keyMask ? ['mask'] : [])],
        outputs: [output],
        attributes: {
          is_causal: shape.visible === 'causal' ? 1 : 0,
          ...(layout === 'rows-first' ? { q_num_heads: shape.heads, kv_num_heads: shape.kvHeads } : {}),
        },
      },
    ],
  };
}

function threeFeeds(shape: Shape, data: Data, layout: Layout): Feeds {
  return {
    q: tensorOf(shape, arrange(data.q, queryDims(shape), layout)),
    k: tensorOf(shape, arrange(data.k, keyDims(shape), layout)),
    v: tensorOf(shape, arrange(data.v, keyDims(shape), layout)),
  };
}

function outputDims(shape: Shape, layout: 'heads-first' | 'rows-first'): number[] {
  const { batch, heads, queryLength, headSize } = shape;
  return layout === 'heads-first' ? queryDims(shape) : [batch, queryLength, heads * headSize];
}

function ours(shape: Shape, data: Data, layout: 'heads-first' | 'rows-first'): Parts {
  const { heads, kvHeads, headSize, visible } = shape;
  return {
    feeds: { ...threeFeeds(shape, data, layout), ...maskFeed(shape) },
    outputDims: outputDims(shape, layout),
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
