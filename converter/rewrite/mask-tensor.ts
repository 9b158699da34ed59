/**
 * Joins the masks and biases of a site that stay tensors into the operator's one attn_mask input. Sites that share their
 * masks share the result.
 */
import { axisGroups } from '../attention/canonical.js';
import type { Derived } from '../attention/derive.js';
import { Refused, type Labelled } from '../attention/form.js';
import type { MaskPlan } from '../attention/masks.js';
import type { Knowledge } from '../graph/knowledge.js';
import { DataType } from '../onnx/tensor.js';
import type { Emitter } from './emitter.js';
import { planRelayout, type Dimensions } from './relayout.js';

/** A row whose largest mask value is below this was hidden as a whole: adding the scores to it changes no digit. */
const HIDDEN_ROW = -1e8;

/** The same for masks that are added in float16, whose lowest number is -65504. */
const HIDDEN_ROW_IN_HALF = -5e4;

/** Any score plus this has a weight of exactly 1. */
export const SATURATING = 1e4;

export interface MaskTensor {
  readonly name: string;
  /** bool, float or the operator's type. */
  readonly dataType: number;
}

/** Masks made so far in one graph, by what they are made of. */
export type MaskCache = Map<string, MaskTensor>;

export interface MaskOptions {
  /** Give rows that see no key the weights that a softmax gives them. */
  readonly keepHiddenRows: boolean;
}

export function emitMask(
  site: Derived,
  plan: MaskPlan,
  knowledge: Knowledge,
  emitter: Emitter,
  dimensions: Dimensions,
  cache: MaskCache,
  options: MaskOptions,
): MaskTensor | null {
  if (plan.addends.length === 0 && plan.visible.length === 0) return null;
  const key = cacheKey(site, plan, options);
  const known = cache.get(key);
  if (known !== undefined) return known;
  const made = make(site, plan, knowledge, emitter, dimensions, options);
  cache.set(key, made);
  return made;
}

/** Sites agree on a mask when they use the same tensors in the same places. */
function cacheKey(site: Derived, plan: MaskPlan, options: MaskOptions): string {
  const groups = axisGroups(site).map((group) => site.space.resolve(group));
  const place = ({ name, axes }: Labelled): string =>
    `${name}[${site.space
      .resolveAll(axes)
      .map((axis) => axis.map((atom) => groups.map((group) => group.indexOf(atom)).join('.')).join(','))
      .join(';')}]`;
  const sizes = groups.map((group) => group.map((atom) => atom.size.join('/')).join(','));
  return [
    String(options.keepHiddenRows),
    ...sizes,
    ...plan.addends.map(({ tensor, factor }) => `+${factor}*${place(tensor)}`),
    ...plan.visible.map(
      ({ condition, negated, fill, replaces }) =>
        `?${negated}:${fill}:${place(condition)}:${replaces?.join(',') ?? '-'}`,
    ),
  ].join('|');
}

function make(
  site: Derived,
  plan: MaskPlan,
  knowledge: Knowledge,
  emitter: Emitter,
  dimensions: Dimensions,
  options: MaskOptions,
): MaskTensor {
  const place = (tensor: Labelled): string => {
    const relayout = planRelayout(tensor.axes, axisGroups(site), site.space, true);
    if (relayout === null)
      throw new Refused('layout', `the axes of mask '${tensor.name}' cannot be matched to the scores`, []);
    return broadcastsAsIs(site, tensor) ? tensor.name : relayout.emit(emitter, dimensions, tensor.name);
  };
  const flags = plan.visible.map(({ condition, negated, fill }) => {
    // A condition that the model does not have yet is made as a boolean.
    const isNew = site.graph.definer(condition.name) === null;
    const type = isNew ? DataType.bool : knowledge.type(site.graph, condition.name);
    const placed = place(condition);
    const flag = type === DataType.bool ? placed : emitter.apply('Cast', [placed], { to: DataType.bool });
    return { name: negated ? emitter.apply('Not', [flag]) : flag, fill };
  });
  const needsRows =
    options.keepHiddenRows &&
    plan.mayHideRows &&
    !site.form.guarded &&
    flags.every(({ fill }) => Number.isFinite(fill) && fill < 0);
  if (plan.addends.length === 0 && !needsRows) {
    return {
      name: flags.map(({ name }) => name).reduce((all, next) => emitter.apply('And', [all, next])),
      dataType: DataType.bool,
    };
  }
  const types = plan.addends.map(({ tensor }) => knowledge.type(site.graph, tensor.name));
  const type =
    types.length > 0 &&
    types.every((entry) => entry === types[0]) &&
    (types[0] === DataType.float || types[0] === site.query[0]!.type) &&
    // ONNX Runtime's CPU provider does not compute in bfloat16.
    (types[0] !== DataType.bfloat16 || (types.length === 1 && plan.addends[0]!.factor === 1)) &&
    flags.length === 0 &&
    !needsRows
      ? types[0]!
      : DataType.float;
  const terms = plan.addends.map(({ tensor, factor }, i) => {
    const placed = place(tensor);
    const cast = types[i] === type ? placed : emitter.apply('Cast', [placed], { to: type });
    return factor === 1 ? cast : emitter.apply('Mul', [cast, emitter.scalar(type, factor)]);
  });
  for (const { name, fill } of flags) {
    terms.push(emitter.choose(name, type, 0, fill === 0 ? -Infinity : fill));
  }
  const sum = terms.reduce((total, term) => emitter.apply('Add', [total, term]));
  if (!needsRows) return { name: sum, dataType: type };
  const half = types.length > 0 && types.every((entry) => entry === DataType.float16);
  const kept = keepHiddenRows(sum, emitter, half ? HIDDEN_ROW_IN_HALF : HIDDEN_ROW);
  return { name: replacesAlike(plan) ? keepReplacedRows(kept, flags, emitter) : kept, dataType: type };
}

/** Every hidden score is replaced by one and the same number, after all that is added to scores was added. */
function replacesAlike({ addends, visible }: MaskPlan): boolean {
  return (
    visible.length > 0 &&
    visible.every(
      ({ fill, replaces }) =>
        fill === visible[0]!.fill &&
        replaces !== undefined &&
        addends.every(({ tensor }) => replaces.includes(tensor.name)),
    )
  );
}

/** A row whose scores are all replaced by one number yields the mean, whatever the number is. */
function keepReplacedRows(mask: string, flags: readonly { name: string }[], emitter: Emitter): string {
  const seen = flags.map(({ name }) => name).reduce((all, next) => emitter.apply('And', [all, next]));
  const numbers = emitter.apply('Cast', [seen], { to: DataType.float });
  const isHidden = emitter.apply('Less', [
    emitter.reduce('ReduceMax', numbers, -1),
    emitter.scalar(DataType.float, 0.5),
  ]);
  return emitter.apply('Where', [isHidden, emitter.scalar(DataType.float, SATURATING), mask]);
}

/**
 * A softmax does not change when a row's mask is shifted, so each row's largest mask value becomes 0. Rows that were hidden
 * as a whole get weights of 1 where the mask is largest, which after division is the mean that their softmax yields.
 */
function keepHiddenRows(mask: string, emitter: Emitter, hiddenRow: number): string {
  const top = emitter.atLeast(emitter.reduce('ReduceMax', mask, -1), DataType.float, -3.4028234663852886e38);
  const shifted = emitter.apply('Sub', [mask, top]);
  const isHidden = emitter.apply('Less', [top, emitter.scalar(DataType.float, hiddenRow)]);
  const lift = emitter.choose(isHidden, DataType.float, SATURATING, 0);
  return emitter.apply('Add', [shifted, lift]);
}

/** The tensor's axes already line up, from the right, with batch, heads, rows and keys. */
function broadcastsAsIs(site: Derived, { axes }: Labelled): boolean {
  const groups = axisGroups(site).map((group) => site.space.resolve(group));
  if (axes.length > groups.length) return false;
  return site.space.resolveAll(axes).every((axis, at) => {
    const group = groups[groups.length - axes.length + at]!;
    return axis.length === 0 || (axis.length === group.length && axis.every((atom, i) => atom === group[i]));
  });
}
