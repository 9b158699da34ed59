/** Readers for the attention operators of ONNX Runtime's contrib domain, com.microsoft. */
import type { Emitter } from '../rewrite/emitter.js';
import type { Knowledge, Size } from '../graph/knowledge.js';
import {
  floatAttribute,
  intAttribute,
  intsAttribute,
  nodeLabel,
  textAttribute,
  type GraphNode,
} from '../graph/node.js';
import { DataType } from '../onnx/tensor.js';
import { downstream, upstream, type Link } from './chains.js';
import type { Past } from './derive.js';
import { Refused, type ScoreForm } from './form.js';
import {
  addMask,
  buildSite,
  callAxes,
  emptyForm,
  fixed,
  fusedAnchor,
  given,
  labelMask,
  readPast,
  sizesOf,
  unsupported,
  type CallAxes,
  type FusedReader,
  type FusedReading,
} from './fused.js';
import { sameSize, type Axis } from './layout.js';

/** Attention operators without a reading here, and why. */
const REFUSED: Readonly<Record<string, readonly ['quantized' | 'unsupported-attribute', string]>> = {
  QAttention: ['quantized', 'works on quantised weights'],
  QOrderedAttention: ['quantized', 'works on quantised weights'],
  LongformerAttention: ['unsupported-attribute', 'combines a window with global tokens'],
  SparseAttention: ['unsupported-attribute', 'uses a block-sparse layout'],
  PagedAttention: ['unsupported-attribute', 'reads keys and values from pages'],
  PackedAttention: ['unsupported-attribute', 'packs its projections and its tokens'],
  DecoderAttention: ['unsupported-attribute', 'chooses between self and cross attention at run time'],
  DecoderMaskedSelfAttention: ['unsupported-attribute', 'keeps its cache in a shared buffer'],
  DecoderMaskedMultiHeadAttention: ['unsupported-attribute', 'keeps its cache in a shared buffer'],
};

const READERS: Readonly<Record<string, FusedReader>> = {
  Attention: readContribAttention,
  MultiHeadAttention: readMultiHead,
  GroupQueryAttention: readGroupQuery,
  PackedMultiHeadAttention: readPacked,
};

export function readContrib(opType: string): FusedReader | null {
  const refusal = REFUSED[opType];
  if (refusal === undefined) return READERS[opType] ?? null;
  return (node) => {
    throw new Refused(refusal[0], `'${nodeLabel(node)}' (${opType}) ${refusal[1]}`, [node]);
  };
}

type Step = (emitter: Emitter) => void;

/** Values that a reading adds to the model, and the nodes that will make them. */
class Prelude {
  private readonly steps: Step[] = [];
  private count = 0;

  constructor(private readonly node: GraphNode) {}

  /** A name that nothing in the model has. */
  name(role: string): string {
    let name = `${nodeLabel(this.node)}/${role}`;
    while (this.node.graph.definer(name) !== null) name += `_${++this.count}`;
    return name;
  }

  add(step: Step): void {
    this.steps.push(step);
  }

  readonly run = (emitter: Emitter): void => this.steps.forEach((step) => step(emitter));
}

function link(node: GraphNode, name: string, axes: readonly Axis[], type: number): Link {
  return { name, graph: node.graph, axes, type, factor: 1, passed: [] };
}

function uniform(value: number, like: Size): Size {
  return like.map(() => value);
}

function divided(size: Size, by: number, node: GraphNode): Size {
  if (size.some((value) => value % by !== 0))
    throw unsupported(node, `has ${size[0]} features for ${by} heads`);
  return size.map((value) => value / by);
}

function scaleOf(node: GraphNode, headSize: number): number {
  const scale = floatAttribute(node, 'scale', 0);
  return scale === 0 ? 1 / Math.sqrt(headSize) : scale;
}

interface KeyMask {
  readonly nonpad: string | null;
}

/** A mask over keys as the contrib operators take it: lengths [B], ends and starts [2B], 0 and 1 of [B,T] or [B,N,T]. */
function addKeyMask(
  node: GraphNode,
  name: string,
  axes: CallAxes,
  form: ScoreForm,
  prelude: Prelude,
  isCausal: boolean,
  knowledge: Knowledge,
): KeyMask {
  const sizes = sizesOf(node, name, knowledge);
  const fill = floatAttribute(node, 'mask_filter_value', -10000);
  const batch = axes.space.sizeOf(axes.batch);
  const hide = (condition: string, layout: readonly Axis[]): KeyMask => {
    form.visible.push({ condition: { name: condition, axes: layout }, negated: false, fill, node });
    return { nonpad: null };
  };
  if (sizes.length === 1 && sameSize(sizes[0]!, batch) && !isCausal) {
    const lengths = prelude.name('key_lengths');
    prelude.add((emitter) => emitter.apply('Cast', [name], { to: DataType.int64 }, lengths));
    return { nonpad: lengths };
  }
  if (sizes.length === 1) {
    const hasStarts = sizes[0]!.every((size, i) => size === 2 * batch[i]!);
    if (!hasStarts && !sameSize(sizes[0]!, batch))
      throw unsupported(node, `has a mask '${name}' of an unknown form`);
    const flag = prelude.name('visible_keys');
    const length = fixed(axes.space.sizeOf(axes.keys), node);
    const entries = fixed(batch, node);
    prelude.add((emitter) => emitRanges(emitter, name, { length, batch: entries, hasStarts }, flag));
    return hide(flag, [axes.batch, axes.keys]);
  }
  const keys = axes.space.sizeOf(axes.keys);
  if (sizes.length > 3 || !sameSize(sizes.at(-1)!, keys))
    throw unsupported(node, `has a mask '${name}' of rank ${sizes.length}`);
  const flag = prelude.name('visible');
  prelude.add((emitter) => emitter.apply('Cast', [name], { to: DataType.bool }, flag));
  return hide(flag, sizes.length === 2 ? [axes.batch, axes.keys] : [axes.batch, axes.rows, axes.keys]);
}

/** [B, T] flags of the keys from start to end of each batch entry. */
function emitRanges(
  emitter: Emitter,
  mask: string,
  {
    length,
    batch,
    hasStarts,
  }: { readonly length: number; readonly batch: number; readonly hasStarts: boolean },
  output: string,
): void {
  const wide = emitter.apply('Cast', [mask], { to: DataType.float });
  const column = emitter.apply('Reshape', [wide, emitter.ints(hasStarts ? [2, batch, 1] : [1, batch, 1])]);
  const positions = emitter.vector(Array.from({ length }, (_, i) => i));
  const part = (index: number): string =>
    emitter.apply('Gather', [column, emitter.scalar(DataType.int64, index)], { axis: 0 });
  const before = emitter.apply('Less', [positions, part(0)], {}, hasStarts ? undefined : output);
  if (!hasStarts) return;
  const early = emitter.apply('Less', [positions, part(1)]);
  emitter.apply('And', [before, emitter.apply('Not', [early])], {}, output);
}

/** com.microsoft Attention: projects one input to queries, keys and values itself. */
function readContribAttention(node: GraphNode, knowledge: Knowledge): FusedReading {
  const { graph } = node;
  const [x, weights] = [node.inputs[0]!, node.inputs[1]!];
  for (const attribute of ['do_rotary', 'past_present_share_buffer']) {
    if (intAttribute(node, attribute, 0) !== 0) throw unsupported(node, `sets ${attribute}`);
  }
  const heads = intAttribute(node, 'num_heads', 0);
  const sizes = sizesOf(node, x, knowledge);
  const width = fixed(sizesOf(node, weights, knowledge)[1]!, node);
  if (sizes.length !== 3 || heads < 1)
    throw unsupported(node, `has an input of rank ${sizes.length} and ${heads} heads`);
  const widths = intsAttribute(node, 'qkv_hidden_sizes') ?? [width / 3, width / 3, width / 3];
  const [qWidth, , vWidth] = widths as [number, number, number];
  const pastName = given(node, 4);
  const pastSizes = pastName === null ? null : sizesOf(node, pastName, knowledge);
  if (pastSizes !== null && pastSizes.length !== 5)
    throw unsupported(node, `has a past of rank ${pastSizes.length}`);
  const axes = callAxes({
    batch: sizes[0]!,
    heads,
    kvHeads: heads,
    rows: sizes[1]!,
    newKeys: sizes[1]!,
    past: pastSizes?.[3] ?? null,
    headSize: uniform(qWidth / heads, sizes[0]!),
    valueHeadSize: uniform(vWidth / heads, sizes[0]!),
  });
  const form = emptyForm(scaleOf(node, qWidth / heads), 0);
  const prelude = new Prelude(node);
  const isCausal = intAttribute(node, 'unidirectional', 0) === 1;
  const mask = given(node, 3);
  const { nonpad } =
    mask === null ? { nonpad: null } : addKeyMask(node, mask, axes, form, prelude, isCausal, knowledge);
  const bias = given(node, 5);
  if (bias !== null) addMask(form, labelMask(node, bias, axes, knowledge), node, knowledge);
  const names = [prelude.name('query'), prelude.name('key'), prelude.name('value')] as const;
  const projectionBias = given(node, 2);
  prelude.add((emitter) => {
    const product = emitter.apply('MatMul', [x, weights]);
    const projected = projectionBias === null ? product : emitter.apply('Add', [product, projectionBias]);
    emitter.split(projected, 2, widths, names);
  });
  const type = knowledge.type(graph, x);
  const all = [...axes.kvHeads, ...axes.group];
  const flat = (rows: Axis, channels: Axis): Axis[] => [axes.batch, rows, [...all, ...channels]];
  const stacked = stackedPast(pastName, node.outputs[1] ?? '', prelude);
  return {
    anchor: fusedAnchor(node),
    isCausal,
    left: -1,
    right: -1,
    site: buildSite({
      node,
      axes,
      form,
      query: [link(node, names[0], flat(axes.rows, axes.channels), type)],
      key: [link(node, names[1], flat(axes.newKeys, axes.channels), type)],
      value: [link(node, names[2], flat(axes.newKeys, axes.valueChannels), type)],
      output: downstream(graph, node.outputs[0]!, flat(axes.rows, axes.valueChannels), knowledge, axes.space),
      past: stacked?.past ?? null,
      nonpad,
      prepare: prelude.run,
      complete: stacked?.complete ?? null,
    }),
  };
}

/** A past of shape [2, B, H, P, D] is taken apart, and the present put together likewise. */
function stackedPast(
  past: string | null,
  present: string,
  prelude: Prelude,
): { past: Past; complete: Step | null } | null {
  if (past === null && present === '') return null;
  const pick = (index: number, role: string): string | null => {
    if (past === null) return null;
    const name = prelude.name(role);
    prelude.add((emitter) =>
      emitter.apply('Gather', [past, emitter.scalar(DataType.int64, index)], { axis: 0 }, name),
    );
    return name;
  };
  const key = pick(0, 'past_key');
  const value = pick(1, 'past_value');
  if (present === '') return { past: { key, value, presentKey: '', presentValue: '' }, complete: null };
  const [presentKey, presentValue] = [prelude.name('present_key'), prelude.name('present_value')];
  const complete: Step = (emitter) => {
    const parts = [presentKey, presentValue].map((name) => emitter.unsqueeze(name, [0]));
    emitter.apply('Concat', parts, { axis: 0 }, present);
  };
  return { past: { key, value, presentKey, presentValue }, complete };
}

/** com.microsoft MultiHeadAttention: queries, keys and values apart or packed, with a bias on each. */
function readMultiHead(node: GraphNode, knowledge: Knowledge): FusedReading {
  const { graph } = node;
  const heads = intAttribute(node, 'num_heads', 0);
  for (const [input, what] of [
    [8, 'a length of a shared past'],
    [9, 'a cache indirection'],
  ] as const) {
    if (given(node, input) !== null) throw unsupported(node, `has ${what}`);
  }
  if (node.outputs[3])
    throw new Refused('unsupported-outputs', `'${nodeLabel(node)}' yields its scores`, [node]);
  const q = sizesOf(node, node.inputs[0]!, knowledge);
  const keyName = given(node, 1);
  const valueName = given(node, 2);
  const k = keyName === null ? null : sizesOf(node, keyName, knowledge);
  const v = valueName === null ? null : sizesOf(node, valueName, knowledge);
  const packed = q.length === 5 ? 'qkv' : k?.length === 5 ? 'kv' : 'none';
  if (packed === 'none' && (k === null || v === null)) throw unsupported(node, 'lacks keys or values');
  const headSize = q.length === 5 ? q[4]! : divided(q[2]!, heads, node);
  const keyRows = packed === 'qkv' ? q[1]! : k!.length === 4 ? k![2]! : k![1]!;
  const valueHeadSize =
    packed === 'none' ? (v!.length === 4 ? v![3]! : divided(v![2]!, heads, node)) : headSize;
  const past = readPast(node, 6, 7, knowledge);
  const axes = callAxes({
    batch: q[0]!,
    heads,
    kvHeads: heads,
    rows: q[1]!,
    newKeys: keyRows,
    past: past?.length ?? null,
    headSize,
    valueHeadSize,
  });
  const form = emptyForm(scaleOf(node, fixed(headSize, node)), 0);
  const prelude = new Prelude(node);
  const isCausal = intAttribute(node, 'unidirectional', 0) === 1;
  const mask = given(node, 4);
  const { nonpad } =
    mask === null ? { nonpad: null } : addKeyMask(node, mask, axes, form, prelude, isCausal, knowledge);
  const bias = given(node, 5);
  if (bias !== null) addMask(form, labelMask(node, bias, axes, knowledge), node, knowledge);
  const all = [...axes.kvHeads, ...axes.group];
  const flat = (rows: Axis, channels: Axis): Axis[] => [axes.batch, rows, [...all, ...channels]];
  const parts = multiHeadParts(
    node,
    packed,
    { axes, heads: all, keyRank: k?.length ?? 3 },
    prelude,
    knowledge,
  );
  return {
    anchor: fusedAnchor(node),
    isCausal,
    left: -1,
    right: -1,
    site: buildSite({
      node,
      axes,
      form,
      ...parts,
      output: downstream(graph, node.outputs[0]!, flat(axes.rows, axes.valueChannels), knowledge, axes.space),
      past:
        past === null && !node.outputs[1] && !node.outputs[2]
          ? null
          : {
              key: past?.key ?? null,
              value: past?.value ?? null,
              presentKey: node.outputs[1] ?? '',
              presentValue: node.outputs[2] ?? '',
            },
      nonpad,
      prepare: prelude.run,
    }),
  };
}

interface MultiHeadLayout {
  readonly axes: CallAxes;
  readonly heads: Axis;
  readonly keyRank: number;
}

function multiHeadParts(
  node: GraphNode,
  packed: 'qkv' | 'kv' | 'none',
  { axes, heads, keyRank }: MultiHeadLayout,
  prelude: Prelude,
  knowledge: Knowledge,
): { query: readonly Link[]; key: readonly Link[]; value: readonly Link[] } {
  const { graph } = node;
  const { batch, rows, newKeys, channels, valueChannels } = axes;
  const type = knowledge.type(graph, node.inputs[0]!);
  const biasName = given(node, 3);
  const split = (source: string, roles: readonly string[]): Link[] => {
    const names = roles.map((role) => prelude.name(role));
    const ones = roles.map(() => 1);
    prelude.add((emitter) => emitter.split(source, 3, ones, names));
    return names.map((name, i) => {
      const channel = roles[i] === 'value' ? valueChannels : channels;
      return link(node, name, [batch, roles[i] === 'query' ? rows : newKeys, heads, [], channel], type);
    });
  };
  const whole = (
    name: string,
    position: Axis,
    channel: Axis,
    isHeadsFirst: boolean,
    foldScale: boolean,
  ): readonly Link[] =>
    upstream(
      graph,
      name,
      isHeadsFirst ? [batch, heads, position, channel] : [batch, position, [...heads, ...channel]],
      knowledge,
      axes.space,
      { foldScale },
    );
  if (packed !== 'none') {
    if (biasName !== null) throw unsupported(node, 'adds a bias to packed operands');
    if (packed === 'qkv') {
      const [query, key, value] = split(node.inputs[0]!, ['query', 'key', 'value']) as [Link, Link, Link];
      return { query: [query], key: [key], value: [value] };
    }
    const [key, value] = split(node.inputs[1]!, ['key', 'value']) as [Link, Link];
    return { query: whole(node.inputs[0]!, rows, channels, false, true), key: [key], value: [value] };
  }
  const isHeadsFirst = keyRank === 4;
  if (biasName === null) {
    return {
      query: whole(node.inputs[0]!, rows, channels, false, true),
      key: whole(node.inputs[1]!, newKeys, channels, isHeadsFirst, !given(node, 6)),
      value: whole(node.inputs[2]!, newKeys, valueChannels, isHeadsFirst, false),
    };
  }
  const width = fixed(axes.space.sizeOf([...heads, ...channels]), node);
  const valueWidth = fixed(axes.space.sizeOf([...heads, ...valueChannels]), node);
  const biases = ['query_bias', 'key_bias', 'value_bias'].map((role) => prelude.name(role));
  prelude.add((emitter) => emitter.split(biasName, 0, [width, width, valueWidth], biases));
  const biased = (input: number, role: string): string => {
    const name = prelude.name(role);
    prelude.add((emitter) => emitter.apply('Add', [node.inputs[input]!, biases[input]!], {}, name));
    return name;
  };
  const flat = (name: string, position: Axis, channel: Axis): Link =>
    link(node, name, [batch, position, [...heads, ...channel]], type);
  const query = [flat(biased(0, 'query'), rows, channels)];
  // Keys and values with the heads in front are those of a cross attention, whose bias was added when they were made.
  if (isHeadsFirst) {
    return {
      query,
      key: whole(node.inputs[1]!, newKeys, channels, true, !given(node, 6)),
      value: whole(node.inputs[2]!, newKeys, valueChannels, true, false),
    };
  }
  return {
    query,
    key: [flat(biased(1, 'key'), newKeys, channels)],
    value: [flat(biased(2, 'value'), newKeys, valueChannels)],
  };
}

/** com.microsoft GroupQueryAttention: causal, with a cache, shared key heads, and rotary positions applied inside. */
function readGroupQuery(node: GraphNode, knowledge: Knowledge): FusedReading {
  const { graph } = node;
  const heads = intAttribute(node, 'num_heads', 0);
  const kvHeads = intAttribute(node, 'kv_num_heads', 0);
  if (intAttribute(node, 'smooth_softmax', 0) > 0 || given(node, 11) !== null) {
    throw new Refused(
      'attention-sink',
      `'${nodeLabel(node)}' lets an extra score without a value take part`,
      [node],
    );
  }
  for (const attribute of ['k_quant_type', 'v_quant_type']) {
    if (textAttribute(node, attribute, 'NONE') !== 'NONE')
      throw new Refused('quantized', `'${nodeLabel(node)}' keeps a quantised cache`, [node]);
  }
  if (node.outputs[3])
    throw new Refused('unsupported-outputs', `'${nodeLabel(node)}' yields its scores`, [node]);
  const q = sizesOf(node, node.inputs[0]!, knowledge);
  const isPacked = given(node, 1) === null;
  const headSize = divided(q[2]!, isPacked ? heads + 2 * kvHeads : heads, node);
  const past = readPast(node, 3, 4, knowledge);
  const axes = callAxes({
    batch: q[0]!,
    heads,
    kvHeads,
    rows: q[1]!,
    newKeys: q[1]!,
    past: past?.length ?? null,
    headSize,
    valueHeadSize: headSize,
  });
  const form = emptyForm(scaleOf(node, fixed(headSize, node)), floatAttribute(node, 'softcap', 0));
  const bias = given(node, 10);
  if (bias !== null) addMask(form, labelMask(node, bias, axes, knowledge), node, knowledge);
  const prelude = new Prelude(node);
  const type = knowledge.type(graph, node.inputs[0]!);
  const all = [...axes.kvHeads, ...axes.group];
  let names: readonly [string, string, string] = [
    node.inputs[0]!,
    node.inputs[1] ?? '',
    node.inputs[2] ?? '',
  ];
  if (isPacked) {
    const size = fixed(headSize, node);
    const parts = [prelude.name('query'), prelude.name('key'), prelude.name('value')] as const;
    const source = names[0];
    prelude.add((emitter) => emitter.split(source, 2, [heads * size, kvHeads * size, kvHeads * size], parts));
    names = parts;
  }
  const rotates = intAttribute(node, 'do_rotary', 0) === 1;
  const [query, key] = rotates ? rotate(node, names, past?.key ?? null, { heads, kvHeads }, prelude) : names;
  const window = intAttribute(node, 'local_window_size', -1);
  const isReal = !isPacked && !rotates;
  const chain = (name: string, layout: readonly Axis[], foldScale: boolean): readonly Link[] =>
    isReal
      ? upstream(graph, name, layout, knowledge, axes.space, { foldScale })
      : [link(node, name, layout, type)];
  return {
    anchor: fusedAnchor(node),
    isCausal: true,
    left: window > 0 ? window - 1 : -1,
    right: -1,
    site: buildSite({
      node,
      axes,
      form,
      query: chain(query, [axes.batch, axes.rows, [...all, ...axes.channels]], true),
      key: chain(key, [axes.batch, axes.newKeys, [...axes.kvHeads, ...axes.channels]], false),
      value: chain(names[2], [axes.batch, axes.newKeys, [...axes.kvHeads, ...axes.valueChannels]], false),
      output: downstream(
        graph,
        node.outputs[0]!,
        [axes.batch, axes.rows, [...all, ...axes.valueChannels]],
        knowledge,
        axes.space,
      ),
      past: {
        key: past?.key ?? null,
        value: past?.value ?? null,
        presentKey: node.outputs[1] ?? '',
        presentValue: node.outputs[2] ?? '',
      },
      prepare: prelude.run,
    }),
  };
}

/** Rotary positions as their own operator; positions go on from the length of the past. */
function rotate(
  node: GraphNode,
  names: readonly [string, string, string],
  past: string | null,
  count: { readonly heads: number; readonly kvHeads: number },
  prelude: Prelude,
): readonly [string, string] {
  const [cos, sin] = [given(node, 7), given(node, 8)];
  if (cos === null || sin === null) throw unsupported(node, 'rotates without tables of cosines and sines');
  const outputs = [prelude.name('rotated_query'), prelude.name('rotated_key')] as const;
  const positions = given(node, 9);
  prelude.add((emitter) => {
    const offset =
      positions ??
      (past === null
        ? emitter.ints([0])
        : emitter.apply('Gather', [emitter.apply('Shape', [past]), emitter.ints([2])], { axis: 0 }));
    for (const [i, heads] of [count.heads, count.kvHeads].entries()) {
      emitter.add({
        name: emitter.fresh('RotaryEmbedding'),
        opType: 'RotaryEmbedding',
        domain: 'com.microsoft',
        inputs: [names[i]!, offset, cos, sin],
        outputs: [outputs[i]!],
        attributes: { interleaved: intAttribute(node, 'rotary_interleaved', 0), num_heads: heads },
      });
    }
  });
  return outputs;
}

/** com.microsoft PackedMultiHeadAttention: the tokens of all sequences in one list, each sees its own sequence. */
function readPacked(node: GraphNode, knowledge: Knowledge): FusedReading {
  const { graph } = node;
  const heads = intAttribute(node, 'num_heads', 0);
  const q = sizesOf(node, node.inputs[0]!, knowledge);
  if (given(node, 1) === null || given(node, 2) === null || q.length !== 2)
    throw unsupported(node, 'packs queries, keys and values into one tensor');
  if (given(node, 3) !== null) throw unsupported(node, 'adds a bias to its operands');
  if (given(node, 6) !== null) throw unsupported(node, 'adds a bias per sequence to its scores');
  const v = sizesOf(node, node.inputs[2]!, knowledge);
  const headSize = divided(q[1]!, heads, node);
  const axes = callAxes({
    batch: uniform(1, q[0]!),
    heads,
    kvHeads: heads,
    rows: q[0]!,
    newKeys: q[0]!,
    past: null,
    headSize,
    valueHeadSize: divided(v[1]!, heads, node),
  });
  const form = emptyForm(scaleOf(node, fixed(headSize, node)), 0);
  const prelude = new Prelude(node);
  const flag = prelude.name('same_sequence');
  const [query, bounds] = [node.inputs[0]!, node.inputs[5]!];
  prelude.add((emitter) => {
    // A token's sequence is the number of bounds up to its position.
    const count = emitter.apply(
      'Gather',
      [emitter.apply('Shape', [query]), emitter.scalar(DataType.int64, 0)],
      { axis: 0 },
    );
    const positions = emitter.apply('Range', [
      emitter.scalar(DataType.int64, 0),
      count,
      emitter.scalar(DataType.int64, 1),
    ]);
    const column = emitter.unsqueeze(emitter.apply('Cast', [positions], { to: DataType.float }), [1]);
    const isBefore = emitter.apply('Less', [column, emitter.apply('Cast', [bounds], { to: DataType.float })]);
    const left = emitter.reduce('ReduceSum', emitter.apply('Cast', [isBefore], { to: DataType.float }), 1);
    const right = emitter.apply('Transpose', [left], { perm: [1, 0] });
    const differs = emitter.apply('Cast', [emitter.apply('Sub', [left, right])], { to: DataType.bool });
    emitter.apply('Not', [differs], {}, flag);
  });
  form.visible.push({
    condition: { name: flag, axes: [axes.rows, axes.keys] },
    negated: false,
    fill: -Infinity,
    node,
  });
  const all = [...axes.kvHeads, ...axes.group];
  const flat = (rows: Axis, channels: Axis): Axis[] => [rows, [...all, ...channels]];
  const up = (input: number, layout: readonly Axis[], foldScale: boolean): readonly Link[] =>
    upstream(graph, node.inputs[input]!, layout, knowledge, axes.space, { foldScale });
  return {
    anchor: fusedAnchor(node),
    isCausal: false,
    left: -1,
    right: -1,
    site: buildSite({
      node,
      axes,
      form,
      query: up(0, flat(axes.rows, axes.channels), true),
      key: up(1, flat(axes.newKeys, axes.channels), true),
      value: up(2, flat(axes.newKeys, axes.valueChannels), false),
      output: downstream(graph, node.outputs[0]!, flat(axes.rows, axes.valueChannels), knowledge, axes.space),
      past: null,
      prepare: prelude.run,
    }),
  };
}
