/**
 * Brings a labelled tensor into a wanted arrangement of its axes with as few operators as it takes: nothing, a Reshape, a
 * Transpose, or Reshape-Transpose-Reshape, with an Expand where the tensor lacks an axis that it must have.
 */
import type { AxisSpace, Atom, Axes, Axis } from '../attention/layout.js';
import type { Link } from '../attention/chains.js';
import { Refused } from '../attention/form.js';
import { FRESH_BASE } from '../graph/shape-rule.js';
import type { Emitter } from './emitter.js';

/** Sizes of axes at run time: constants, or read off tensors of the model. */
export class Dimensions {
  private readonly sources: { readonly name: string; readonly axes: readonly (readonly Atom[])[] }[] = [];

  private readonly sums: {
    readonly axis: Axis;
    readonly past: { readonly name: string; readonly axis: number };
    readonly rest: Axis;
  }[] = [];

  constructor(
    private readonly space: AxisSpace,
    private readonly emitter: Emitter,
  ) {}

  /** Offers the axes of a tensor as sources of sizes. */
  offer(links: readonly Link[]): void {
    for (const link of links) this.sources.push({ name: link.name, axes: this.space.resolveAll(link.axes) });
  }

  /** Offers the sum of two axes as the source of a size. */
  offerSum(axis: Axis, past: { readonly name: string; readonly axis: number }, rest: Axis): void {
    this.sums.push({ axis, past, rest });
  }

  fixed(axis: Axis): number | null {
    const size = this.space.sizeOf(axis);
    return size.every((value) => value === size[0] && value < FRESH_BASE) ? size[0]! : null;
  }

  /** An int64 tensor of shape [1] that holds the axis' size. */
  value(axis: Axis): string {
    const fixed = this.fixed(axis);
    if (fixed !== null) return this.emitter.ints([fixed]);
    const atoms = this.space.resolve(axis);
    for (const source of this.sources) {
      const at = source.axes.findIndex(
        (entry) => entry.length === atoms.length && entry.every((atom, i) => atom === atoms[i]),
      );
      if (at >= 0)
        return this.emitter.apply(
          'Gather',
          [this.emitter.apply('Shape', [source.name]), this.emitter.ints([at])],
          { axis: 0 },
        );
    }
    const sum = this.sums.find(({ axis: total }) => this.space.equal(total, axis));
    if (sum !== undefined) {
      const shape = this.emitter.apply('Shape', [sum.past.name]);
      const past = this.emitter.apply('Gather', [shape, this.emitter.ints([sum.past.axis])], { axis: 0 });
      return this.emitter.apply('Add', [past, this.value(sum.rest)]);
    }
    const part = this.partOf(atoms);
    if (part !== null) return part;
    if (atoms.length < 2)
      throw new Refused('layout', 'the size of an axis cannot be read from any tensor of the site', []);
    return atoms
      .map((atom) => this.value([atom]))
      .reduce((product, size) => this.emitter.apply('Mul', [product, size]));
  }

  /** A source axis that holds the atoms and besides only ones of fixed size, divided by these. */
  private partOf(atoms: readonly Atom[]): string | null {
    for (const source of this.sources) {
      for (const [at, axis] of source.axes.entries()) {
        const rest = axis.filter((atom) => !atoms.includes(atom));
        const fixed = this.fixed(rest);
        if (rest.length + atoms.length !== axis.length || fixed === null || fixed === 0) continue;
        const whole = this.emitter.apply(
          'Gather',
          [this.emitter.apply('Shape', [source.name]), this.emitter.ints([at])],
          { axis: 0 },
        );
        return this.emitter.apply('Div', [whole, this.emitter.ints([fixed])]);
      }
    }
    return null;
  }

  /** Shape input of a Reshape from `from` to `to`, constant where possible. */
  reshapeTarget(from: readonly (readonly Atom[])[], to: readonly (readonly Atom[])[]): string {
    const entries: (number | null)[] = to.map((axis, at) => {
      const fixed = this.fixed(axis);
      if (fixed !== null) return fixed;
      const source = from[at];
      return source !== undefined &&
        source.length === axis.length &&
        source.every((atom, i) => atom === axis[i])
        ? 0
        : null;
    });
    const open = entries.filter((entry) => entry === null).length;
    return open <= 1 ? this.emitter.ints(entries.map((entry) => entry ?? -1)) : this.join(to);
  }

  /** A shape tensor of the given axes. */
  join(axes: readonly Axis[]): string {
    const fixed = axes.map((axis) => this.fixed(axis));
    if (fixed.every((size): size is number => size !== null)) return this.emitter.ints(fixed);
    return this.emitter.apply(
      'Concat',
      axes.map((axis) => this.value(axis)),
      { axis: 0 },
    );
  }
}

export interface Relayout {
  /** Operators that it takes. */
  readonly cost: number;
  /** The tensor lacks an axis, along which it is repeated. */
  readonly repeats: boolean;
  emit(emitter: Emitter, dimensions: Dimensions, name: string, output?: string): string;
}

function sameAxes(a: readonly Axis[], b: readonly Axis[]): boolean {
  if (a.length !== b.length) return false;
  for (let axis = 0; axis < a.length; axis++) if (!sameAxis(a[axis]!, b[axis]!)) return false;
  return true;
}

function sameAxis(a: Axis, b: Axis): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

function holds(axes: readonly Axis[], atom: Atom): boolean {
  for (const axis of axes) if (axis.includes(atom)) return true;
  return false;
}

/** Nothing is to be done but to give the value a name. */
const UNCHANGED: Relayout = {
  cost: 0,
  repeats: false,
  emit: (emitter, _dimensions, name, output) =>
    output === undefined ? name : emitter.apply('Identity', [name], {}, output),
};

/**
 * Plans the way from a tensor to the target axes. Atoms of the target that the tensor lacks are left at size 1 when `partial`
 * and none of their axis is there, else repeated.
 * @returns `null` when the tensor has an atom that the target lacks
 */
export function planRelayout(
  axes: Axes,
  target: readonly Axis[],
  space: AxisSpace,
  partial: boolean,
): Relayout | null {
  const source = space.resolveAll(axes);
  const wanted = space.resolveAll(target);
  for (const axis of source) for (const atom of axis) if (!holds(wanted, atom)) return null;
  const has = (atom: Atom): boolean => holds(source, atom);
  const goal = partial ? wanted.map((axis) => (axis.some(has) ? axis : [])) : wanted;
  if (sameAxes(source, goal)) return UNCHANGED;
  const missing: Atom[] = [];
  for (const axis of goal) for (const atom of axis) if (!has(atom)) missing.push(atom);
  if (missing.length > 0) return general(source, goal, missing);
  if (sameAxis(source.flat(), goal.flat())) {
    return {
      cost: 1,
      repeats: false,
      emit: (emitter, dimensions, name, output) =>
        emitter.apply('Reshape', [name, dimensions.reshapeTarget(source, goal)], {}, output),
    };
  }
  const perm = permutation(source, goal);
  if (perm === null) return general(source, goal, missing);
  return {
    cost: 1,
    repeats: false,
    emit: (emitter, _dimensions, name, output) => emitter.apply('Transpose', [name], { perm }, output),
  };
}

/** The permutation of whole axes that leads from one arrangement to the other. */
function permutation(source: readonly Axis[], goal: readonly Axis[]): number[] | null {
  if (source.length !== goal.length) return null;
  const perm: number[] = [];
  for (const axis of goal) {
    const at = source.findIndex((entry, i) => !perm.includes(i) && sameAxis(entry, axis));
    if (at < 0) return null;
    perm.push(at);
  }
  return perm;
}

function general(source: readonly Axis[], goal: readonly Axis[], missing: readonly Atom[]): Relayout {
  const present = goal.map((axis) => axis.filter((atom) => !missing.includes(atom)));
  const units = unitsOf(source, goal);
  const order = present
    .flat()
    .filter((atom) => units.some((unit) => unit[0] === atom))
    .map((atom) => units.findIndex((unit) => unit[0] === atom));
  const moves = order.some((unit, i) => unit !== i);
  const splits = !sameAxes(source, units);
  const moved = order.map((unit) => units[unit]!);
  const grown: (readonly Atom[])[] = [];
  const ones: (readonly Atom[])[] = [];
  for (const axis of goal) {
    for (let i = 0; i < axis.length;) {
      if (missing.includes(axis[i]!)) {
        grown.push([axis[i]!]);
        ones.push([]);
        i += 1;
      } else {
        const unit = moved.find((entry) => entry[0] === axis[i])!;
        grown.push(unit);
        ones.push(unit);
        i += unit.length;
      }
    }
  }
  const expands = missing.length > 0;
  const opens = expands && !sameAxes(moved, ones);
  const joins = !sameAxes(expands ? grown : moved, goal);
  const cost = [splits, moves, opens, expands, joins].filter(Boolean).length;
  return {
    cost,
    repeats: expands,
    emit(emitter, dimensions, name, output) {
      let current = name;
      let at: readonly (readonly Atom[])[] = source;
      let left = cost;
      const step = (
        opType: string,
        extra: readonly string[],
        attributes: Record<string, readonly number[]>,
      ): void => {
        left -= 1;
        current = emitter.apply(opType, [current, ...extra], attributes, left === 0 ? output : undefined);
      };
      if (splits) step('Reshape', [dimensions.reshapeTarget(at, units)], {});
      if (splits) at = units;
      if (moves) step('Transpose', [], { perm: order });
      if (moves) at = moved;
      if (opens) step('Reshape', [dimensions.reshapeTarget(at, ones)], {});
      if (expands) step('Expand', [dimensions.join(grown)], {});
      if (expands) at = grown;
      if (joins) step('Reshape', [dimensions.reshapeTarget(at, goal)], {});
      return current;
    },
  };
}

/** Runs of atoms that stay together, in source order. */
function unitsOf(source: readonly (readonly Atom[])[], goal: readonly (readonly Atom[])[]): Atom[][] {
  const successor = new Map<Atom, Atom>();
  for (const axis of goal)
    axis.forEach((atom, i) => i + 1 < axis.length && successor.set(atom, axis[i + 1]!));
  const units: Atom[][] = [];
  for (const axis of source) {
    axis.forEach((atom, i) => {
      const before = axis[i - 1];
      if (before !== undefined && successor.get(before) === atom) units.at(-1)!.push(atom);
      else units.push([atom]);
    });
  }
  return units;
}
