/**
 * Shapes of sequences of tensors, as older exporters spell repeat_interleave. A sequence is described by the shape that its
 * elements share; an axis along which they may differ, or that they are joined by, is open.
 */
import { axisAttribute, intAttribute } from './node.js';
import { first, type Dims, type ShapeContext, type ShapeRule } from './shape-rule.js';

function opened(context: ShapeContext, dims: Dims | null, fallback: number): Dims | null {
  if (dims === null || dims.length === 0) return null;
  const axis = axisAttribute(context.node, fallback, dims.length);
  return dims.map((dim, at) => (at === axis ? context.fresh() : dim));
}

/** The size of all parts along the split axis; `null` where they differ or nothing is known of them. */
function partSize(context: ShapeContext, whole: number): number | null {
  if (context.node.inputs[1] === undefined || context.node.inputs[1] === '') return 1;
  const [size, ...others] = context.value(1)?.data ?? [];
  return size !== undefined && whole % size === 0 && others.every((other) => other === size) ? size : null;
}

export const SEQUENCE_RULES: Readonly<Record<string, ShapeRule>> = {
  SplitToSequence: (context) => {
    const whole = context.dims(0);
    const axis = whole === null || whole.length === 0 ? 0 : axisAttribute(context.node, 0, whole.length);
    const part = whole === null ? null : partSize(context, whole[axis]!);
    const dims =
      part === null ? opened(context, whole, 0) : whole!.map((dim, at) => (at === axis ? part : dim));
    const drops = context.node.inputs.length < 2 && intAttribute(context.node, 'keepdims', 1) === 0;
    return [drops ? null : dims];
  },
  SequenceAt: first,
  SequenceErase: first,
  SequenceInsert: (context) => [context.dims(1)],
  ConcatFromSequence: (context) => {
    const stacks = intAttribute(context.node, 'new_axis', 0) === 1;
    return [stacks ? null : opened(context, context.dims(0), 0)];
  },
};
