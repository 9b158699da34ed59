/** Pass 4, rewrite: the nodes that stand for one site. */
import { INPUTS, type Attributes, type InputName } from '../../op/schema.js';
import type { FunctionUse } from '../../op/function.js';
import type { ElementType } from '../../op/tensor.js';
import type { SpelledSite } from '../attention/analyse.js';
import { axisGroups } from '../attention/canonical.js';
import { shapeReaders, type Derived } from '../attention/derive.js';
import { Refused, type TensorFactor } from '../attention/form.js';
import type { Axis } from '../attention/layout.js';
import type { Mode, SiteParameters } from '../conversion.js';
import type { Knowledge } from '../graph/knowledge.js';
import { intAttribute, type GraphNode } from '../graph/node.js';
import { DataType } from '../onnx/tensor.js';
import { attach, type Attachment, type Feed } from './attach.js';
import type { Emitter } from './emitter.js';
import { centredRow, keysLessMean } from './centre.js';
import { emitMask, type MaskCache, type MaskTensor } from './mask-tensor.js';
import { emitPartialTerms } from './partial-terms.js';
import { Dimensions, planRelayout, SizeSources } from './relayout.js';
import { perChannel, rowTerms } from './row-terms.js';

/** The operator call of a site before it is encoded, so that the calls of a model can be made alike. */
export interface Call {
  readonly attributes: Attributes;
  readonly inputs: Map<InputName, string>;
  readonly type: ElementType;
  maskType: ElementType | 'bool' | null;
  readonly rank: 3 | 4;
  readonly heads: number | null;
  readonly kvHeads: number | null;
  readonly headSize: number | null;
  readonly valueHeadSize: number | null;
  /** See {@link Replacement}. */
  readonly operands: { readonly query: number; readonly key: number } | null;
  /** Names of Y, present_key, present_value. */
  outputs: readonly string[];
}

/** With this bias the weights of a float32 softmax are met within exp(score - 40), and a score down to -47 does not underflow. */
const FAITHFUL_BIAS = -40;

export interface ReplaceContext {
  readonly knowledge: Knowledge;
  readonly emitter: Emitter;
  readonly masks: MaskCache;
  readonly mode: Mode;
  readonly parameters: SiteParameters;
}

const ELEMENT_TYPES: Readonly<Record<number, ElementType>> = {
  [DataType.float]: 'float',
  [DataType.float16]: 'float16',
  [DataType.bfloat16]: 'bfloat16',
};

/** Emits everything around the operator; `finish` emits what follows it once the call itself has been added. */
export function replaceSite(
  spelled: SpelledSite,
  attachment: Attachment,
  context: ReplaceContext,
): { call: Call; finish: () => void } {
  const { site, masks } = spelled;
  const { emitter, knowledge, parameters, mode } = context;
  const dimensions = new Dimensions(site, emitter);
  site.prepare?.(emitter);
  for (const terms of site.form.partials)
    emitPartialTerms(terms, knowledge.type(site.graph, terms.source), dimensions, emitter);
  const inputs = new Map<InputName, string>();
  const scaleFactors = splitScale(site, knowledge);
  const factor =
    site.form.scale * attachment.query.link.factor * attachment.key.link.factor * scaleFactors.number;
  inputs.set(
    'Q',
    feedThrough(attachment.query, attachment, context, dimensions, scaleFactors.query, site, 'query'),
  );
  inputs.set(
    'K',
    feedThrough(attachment.key, attachment, context, dimensions, scaleFactors.key, site, 'key'),
  );
  const isSoftmax = spelled.anchor.kind === 'softmax';
  const centres =
    isSoftmax &&
    parameters.centreScores === true &&
    site.past === null &&
    site.nonpad === null &&
    site.form.softcap === 0;
  if (centres && !masks.isCausal) inputs.set('K', keysLessMean(inputs.get('K')!, attachment.rank, emitter));
  const gains = splitGains(site);
  inputs.set('V', feedThrough(attachment.value, attachment, context, dimensions, gains.value, site, 'value'));
  const centresValues =
    isSoftmax && parameters.centreValues === true && site.past === null && sharesNoHeads(attachment, site);
  const valueMean = centresValues
    ? emitter.reduce('ReduceMean', inputs.get('V')!, attachment.rank - 2)
    : null;
  const shifts = isSoftmax ? shiftsOf(parameters, attachment, site, emitter) : NO_SHIFTS;
  if (valueMean !== null && shifts.value !== null) {
    const moved = emitter.apply('Sub', [shifts.value, valueMean]);
    inputs.set('V', emitter.apply('Add', [inputs.get('V')!, moved]));
  } else if (valueMean !== null) inputs.set('V', emitter.apply('Sub', [inputs.get('V')!, valueMean]));
  else if (shifts.value !== null) inputs.set('V', emitter.apply('Add', [inputs.get('V')!, shifts.value]));

  const keepHiddenRows = isSoftmax && mode === 'faithful';
  const mask = emitMask(site, masks, knowledge, emitter, dimensions, context.masks, { keepHiddenRows });
  let maskInput = mask === null ? null : inType(mask, attachment.type, emitter);
  const heads = fixedProduct(site.heads);
  const kvHeads = fixedProduct(attachment.kvHeads);
  const headScale = mergeHeadScale(scaleFactors.heads, isSoftmax ? parameters.headScale : undefined);
  const headSize = fixedProduct(site.channels);
  if (isSoftmax && heads !== null && kvHeads !== null) {
    const { rank, type } = attachment;
    const [query, key] = [inputs.get('Q')!, inputs.get('K')!];
    const call = { rank, type, heads, kvHeads, headSize: headSize ?? 0, scale: factor, query, key };
    const isUnscaled = scaleFactors.heads === null;
    const terms = rowTerms(
      {
        ...call,
        headScale,
        isCausal: masks.isCausal,
        ownsKeys: heads === kvHeads && site.past === null && site.nonpad === null && site.form.softcap === 0,
        hasMoments: site.past === null && site.nonpad === null,
      },
      headSize === null ? {} : parameters,
      emitter,
    );
    if (terms.keys !== null) inputs.set('K', terms.keys);
    const moved =
      centres && masks.isCausal && isUnscaled
        ? centredRow(call, { rowMean: new Array<number>(heads).fill(-1) }, emitter)
        : terms.mask;
    if (moved !== null) maskInput = withMask(moved, maskInput, type, emitter);
  }
  if (maskInput !== null) inputs.set('attn_mask', maskInput.name);
  const perHead = (values: readonly number[]): string => emitter.vector(values);
  const headBias = isSoftmax ? parameters.headBias : masks.headBias;
  if (headBias) inputs.set('head_bias', perHead(headBias));
  if (headScale !== null) inputs.set('head_scale', perHead(headScale));
  // ONNX Runtime's CPU provider multiplies no bfloat16.
  const foldsGain = site.form.gain !== 1 && attachment.type === DataType.bfloat16 && heads !== null;
  const gain = foldsGain ? site.form.gain : 1;
  const headGain = isSoftmax ? parameters.headGain : undefined;
  if (headGain || foldsGain) {
    const ones = new Array<number>(heads ?? 0).fill(1);
    inputs.set('head_gain', perHead((headGain ?? ones).map((value) => value * gain)));
  }
  if (masks.alibi !== null) inputs.set('alibi_slopes', perHead(masks.alibi));

  if (site.past?.key && site.past.value) {
    inputs.set('past_key', site.past.key);
    inputs.set('past_value', site.past.value);
  }
  if (site.nonpad !== null) inputs.set('nonpad_kv_seqlen', site.nonpad);

  const attributes: Attributes = {
    scale: factor,
    bias: masks.bias,
    bias_mode: masks.biasMode,
    is_causal: masks.isCausal,
    left_window_size: masks.left,
    right_window_size: masks.right,
    softcap: site.form.softcap,
    normalize: site.form.normalise !== null,
    ...(isSoftmax
      ? softmaxAttributes(mode, parameters, masks.isCausal || masks.left >= 0 || masks.right >= 0)
      : {}),
    ...(attachment.rank === 3 ? { q_num_heads: heads!, kv_num_heads: kvHeads! } : {}),
  };
  const { output } = attachment;
  const isDirect =
    valueMean === null &&
    shifts.output === null &&
    output.relayout.cost === 0 &&
    !output.casts &&
    gains.output.length === 0 &&
    site.form.gain === gain;
  const result = isDirect ? output.link.name : emitter.fresh('Y');
  const call: Call = {
    attributes,
    inputs,
    type: ELEMENT_TYPES[attachment.type]!,
    maskType:
      maskInput === null
        ? null
        : maskInput.dataType === DataType.bool
          ? 'bool'
          : ELEMENT_TYPES[maskInput.dataType]!,
    rank: attachment.rank,
    heads,
    kvHeads,
    headSize: fixedProduct(site.channels),
    valueHeadSize: fixedProduct(site.valueChannels),
    operands:
      scaleFactors.query.length + scaleFactors.key.length > 0
        ? null
        : { query: attachment.query.link.factor, key: attachment.key.link.factor },
    outputs:
      site.past === null || (site.past.presentKey === '' && site.past.presentValue === '')
        ? [result]
        : [result, site.past.presentKey, site.past.presentValue],
  };
  const finish = (): void => {
    site.complete?.(emitter);
    if (isDirect) return;
    const added =
      valueMean !== null && shifts.output !== null
        ? emitter.apply('Add', [valueMean, shifts.output])
        : (valueMean ?? shifts.output);
    let current = added === null ? result : emitter.apply('Add', [result, added]);
    for (const entry of gains.output)
      current = applyFactor(current, entry, rankFour(site), context, dimensions, attachment.type, site);
    if (site.form.gain !== gain)
      current = emitter.apply('Mul', [current, emitter.scalar(attachment.type, site.form.gain)]);
    const last = output.casts ? undefined : output.link.name;
    const moved = output.relayout.emit(emitter, dimensions, current, last);
    if (output.casts) emitter.apply('Cast', [moved], { to: output.link.type }, output.link.name);
  };
  return { call, finish };
}

interface Shifts {
  readonly value: string | null;
  readonly output: string | null;
}

const NO_SHIFTS: Shifts = { value: null, output: null };

function shiftsOf(
  { valueShift, outputShift }: SiteParameters,
  attachment: Attachment,
  site: Derived,
  emitter: Emitter,
): Shifts {
  const ownsValues = site.past === null && sharesNoHeads(attachment, site);
  return {
    value: valueShift && ownsValues ? perChannel(attachment, valueShift, emitter) : null,
    output: outputShift ? perChannel(attachment, outputShift, emitter) : null,
  };
}

function sharesNoHeads(attachment: Attachment, site: Derived): boolean {
  const heads = fixedProduct(site.heads);
  return heads !== null && heads === fixedProduct(attachment.kvHeads);
}

function softmaxAttributes(
  mode: Mode,
  parameters: SiteParameters,
  countsVisible: boolean,
): Partial<Attributes> {
  const isPaper = mode === 'paper';
  return {
    bias: parameters.bias ?? (mode === 'faithful' ? FAITHFUL_BIAS : 0),
    bias_mode:
      parameters.biasMode ?? (isPaper ? (countsVisible ? 'neg_log_visible' : 'neg_log_total') : 'none'),
    normalize: parameters.normalize ?? mode === 'faithful',
  };
}

function fixedProduct(atoms: readonly { readonly size: readonly number[] }[]): number | null {
  const size = atoms.reduce((product, atom) => product * atom.size[0]!, 1);
  return atoms.every((atom) => atom.size.every((value) => value === atom.size[0])) ? size : null;
}

/** An attn_mask may be bool, float or the operator's type. */
function inType(mask: MaskTensor, type: number, emitter: Emitter): MaskTensor {
  if (mask.dataType === DataType.bool || mask.dataType === DataType.float || mask.dataType === type)
    return mask;
  return { name: emitter.apply('Cast', [mask.name], { to: DataType.float }), dataType: DataType.float };
}

/** The number that moves each row, together with the mask that the site has anyway. */
function withMask(moved: string, mask: MaskTensor | null, type: number, emitter: Emitter): MaskTensor {
  if (mask === null) return { name: moved, dataType: type };
  if (mask.dataType === DataType.bool) {
    const hidden = emitter.scalar(type, -Infinity);
    return { name: emitter.apply('Where', [mask.name, moved, hidden]), dataType: type };
  }
  const alike = mask.dataType === type ? moved : emitter.apply('Cast', [moved], { to: mask.dataType });
  return { name: emitter.apply('Add', [mask.name, alike]), dataType: mask.dataType };
}

interface ScaleSplit {
  /** Constant factors. */
  readonly number: number;
  /** Constant factors per head. */
  readonly heads: readonly number[] | null;
  readonly query: readonly TensorFactor[];
  readonly key: readonly TensorFactor[];
}

function touches(site: Derived, factor: TensorFactor, atoms: readonly { readonly id: number }[]): boolean {
  return site.space.resolveAll(factor.tensor.axes).some((axis) => axis.some((atom) => atoms.includes(atom)));
}

/** Tensor factors on the scores go to head_scale where they are constants per head, else onto the queries or the keys. */
function splitScale(site: Derived, knowledge: Knowledge): ScaleSplit {
  const query: TensorFactor[] = [];
  const key: TensorFactor[] = [];
  let heads: number[] | null = null;
  for (const factor of site.form.scaleTensors) {
    const overRows = touches(site, factor, site.rows);
    const overKeys = touches(site, factor, site.keys);
    if (overRows && overKeys) {
      throw new Refused(
        'scores-changed',
        `the scores are multiplied by '${factor.tensor.name}', which differs from score to score`,
        [factor.node],
      );
    }
    const constant = overRows || overKeys ? null : headConstants(site, factor, knowledge);
    if (constant !== null) heads = mergeHeadScale(heads, constant);
    else if (overKeys) key.push(factor);
    else query.push(factor);
  }
  return { number: 1, heads, query, key };
}

function headConstants(site: Derived, factor: TensorFactor, knowledge: Knowledge): number[] | null {
  const count = fixedProduct(site.heads);
  const values = knowledge.values(site.graph, factor.tensor.name);
  const [first] = values ?? [];
  if (count === null || first === undefined || first.data.length !== count) return null;
  if (
    touches(site, factor, site.batch) ||
    values!.some(({ data }) => data.some((value, i) => value !== first.data[i]))
  )
    return null;
  return Array.from(first.data, (value) => (factor.divides ? 1 / value : value));
}

function mergeHeadScale(
  a: readonly number[] | null,
  b: readonly number[] | null | undefined,
): number[] | null {
  if (a === null) return b ? [...b] : null;
  return a.map((value, i) => value * (b?.[i] ?? 1));
}

/** Factors on the weights that differ from key to key belong to the values, the others to the result. */
function splitGains(site: Derived): { output: TensorFactor[]; value: TensorFactor[] } {
  const output: TensorFactor[] = [];
  const value: TensorFactor[] = [];
  for (const factor of site.form.gainTensors) {
    if (!touches(site, factor, site.keys)) output.push(factor);
    else if (touches(site, factor, site.rows)) {
      throw new Refused(
        'weights-changed',
        `the weights are multiplied by '${factor.tensor.name}', which differs from weight to weight`,
        [factor.node],
      );
    } else value.push(factor);
  }
  return { output, value };
}

function rankFour(site: Derived): Axis[] {
  return [...axisGroups(site).slice(0, 3), []];
}

function feedThrough(
  feed: Feed,
  attachment: Attachment,
  context: ReplaceContext,
  dimensions: Dimensions,
  factors: readonly TensorFactor[],
  site: Derived,
  role: 'query' | 'key' | 'value',
): string {
  const { emitter } = context;
  const { link } = feed;
  const cast = feed.casts ? emitter.apply('Cast', [link.name], { to: attachment.type }) : link.name;
  let current = feed.relayout.emit(emitter, dimensions, cast);
  const position = role === 'query' ? site.rows : site.newKeys;
  const heads = role === 'query' ? site.heads : attachment.kvHeads;
  for (const factor of factors) {
    current = applyFactor(
      current,
      factor,
      [site.batch, heads, position, []],
      context,
      dimensions,
      attachment.type,
      site,
    );
  }
  return current;
}

function applyFactor(
  value: string,
  factor: TensorFactor,
  target: readonly Axis[],
  context: ReplaceContext,
  dimensions: Dimensions,
  type: number,
  site: Derived,
): string {
  const { emitter, knowledge } = context;
  const relayout = planRelayout(factor.tensor.axes, target, site.space, true);
  if (relayout === null)
    throw new Refused(
      'layout',
      `the axes of '${factor.tensor.name}' cannot be matched to those of the site`,
      [factor.node],
    );
  const placed = relayout.emit(emitter, dimensions, factor.tensor.name);
  const own = knowledge.type(site.graph, factor.tensor.name);
  const cast = own === type ? placed : emitter.apply('Cast', [placed], { to: type });
  return emitter.apply(factor.divides ? 'Div' : 'Mul', [value, cast]);
}

/** Whether tensors have to be multiplied onto Q, K, V or Y, which is done in rank 4. */
export function needsRankFour(site: Derived, knowledge: Knowledge): boolean {
  const { query, key } = splitScale(site, knowledge);
  return query.length > 0 || key.length > 0 || site.form.gainTensors.length > 0;
}

/** Answers a Shape node on the scores or weights from the queries' and keys' shapes. */
export function emitShape(reader: GraphNode, site: Derived, emitter: Emitter): void {
  const dimensions = new Dimensions(site, emitter);
  const axes = site.shapes.get(reader.inputs[0]!)!;
  const start = intAttribute(reader, 'start', 0);
  const end = intAttribute(reader, 'end', axes.length);
  emitter.apply('Identity', [dimensions.join(axes.slice(start, end))], {}, reader.outputs[0]);
}

/** Throws a refusal when the site cannot be brought into the operator's form. */
export function checkRewritable({ site }: SpelledSite, knowledge: Knowledge): void {
  splitScale(site, knowledge);
  splitGains(site);
  const sizes = new SizeSources(site);
  if (attach(site, 3) === null && attach(site, 4) === null)
    throw new Refused(
      'layout',
      'queries, keys, values and result cannot be brought into one arrangement',
      [],
    );
  for (const tensor of [
    ...site.form.addends.map((entry) => entry.tensor),
    ...site.form.visible.map((entry) => entry.condition),
  ]) {
    const relayout = planRelayout(tensor.axes, axisGroups(site), site.space, true);
    if (relayout?.isReadable(sizes) !== true) {
      throw new Refused('layout', `the axes of '${tensor.name}' cannot be matched to the scores`, []);
    }
  }
  const shapes = shapeReaders(site).map(({ inputs }) => site.shapes.get(inputs[0]!)!);
  for (const axes of [...site.form.partials.map((terms) => terms.axes), ...shapes]) {
    if (axes.some((axis) => sizes.reading(axis) === null))
      throw new Refused('layout', 'the sizes of the scores cannot be read from queries and keys', []);
  }
}

/** The call as the portable function sees it. */
export function functionUse(call: Call): FunctionUse {
  return {
    type: call.type,
    rank: call.rank,
    attributes: call.attributes,
    inputs: INPUTS.filter(({ name, optional }) => optional && call.inputs.has(name)).map(({ name }) => name),
    presents: call.outputs.some((name, i) => i > 0 && name !== ''),
    ...(call.maskType === null ? {} : { maskType: call.maskType }),
  };
}
