/**
 * Brings a labelled tensor into a wanted arrangement of its axes with as few operators as it takes: nothing, a Reshape, a
 * Transpose, or Reshape-Transpose-Reshape, with an Expand where the tensor lacks an axis that it must have.
 */
import type { AxisSpace, Atom, Axes, Axis } from '../attention/layout.js';
import type { Derived } from '../attention/derive.js';
import { Refused } from '../attention/form.js';
import { FRESH_BASE } from '../graph/shape-rule.js';
import type { Emitter } from './emitter.js';

/** Emits nodes that give a size as an int64 tensor of shape [1]. */
type Reading = (emitter: Emitter) => string;

/** Where sizes of axes can be read off at run time: constants, or tensors of the model around a site. */
export class SizeSources {
  private readonly sources: { readonly name: string; readonly axes: readonly (readonly Atom[])[] }[] = [];
  private readonly sum: { readonly past: string; readonly axis: Axis; readonly rest: Axis } | null;

  constructor(site: Derived) {
    this.space = site.space;
    for (const chain of [site.query, site.key, site.value]) {
      for (const link of [...chain].reverse())
        this.sources.push({ name: link.name, axes: this.space.resolveAll(link.axes) });
    }
    this.sum = site.past?.key ? { past: site.past.key, axis: site.keys, rest: site.newKeys } : null;
  }

  readonly space: AxisSpace;

  fixed(axis: Axis): number | null {
    const size = this.space.sizeOf(axis);
    return size.every((value) => value === size[0] && value < FRESH_BASE) ? size[0]! : null;
  }

  /** `null` where no tensor tells the size. */
  reading(axis: Axis): Reading | null {
    const fixed = this.fixed(axis);
    if (fixed !== null) return (emitter) => emitter.ints([fixed]);
    const atoms = this.space.resolve(axis);
    for (const { name, axes } of this.sources) {
      const at = axes.findIndex((entry) => sameAxis(entry, atoms));
      if (at >= 0) return (emitter) => sizeOfAxis(emitter, name, at);
    }
    const { sum } = this;
    if (sum !== null && this.space.equal(sum.axis, axis)) {
      const rest = this.reading(sum.rest);
      return rest && ((emitter) => emitter.apply('Add', [sizeOfAxis(emitter, sum.past, 2), rest(emitter)]));
    }
    return this.partReading(atoms) ?? this.productReading(atoms);
  }

  /** A source axis that holds the atoms and besides only ones of fixed size, divided by these. */
  private partReading(atoms: readonly Atom[]): Reading | null {
    for (const { name, axes } of this.sources) {
      for (const [at, axis] of axes.entries()) {
        const rest = axis.filter((atom) => !atoms.includes(atom));
        const fixed = this.fixed(rest);
        if (rest.length + atoms.length !== axis.length || fixed === null || fixed === 0) continue;
        return (emitter) => emitter.apply('Div', [sizeOfAxis(emitter, name, at), emitter.ints([fixed])]);
      }
    }
    return null;
  }

  private productReading(atoms: readonly Atom[]): Reading | null {
    if (atoms.length < 2) return null;
    const parts = atoms.map((atom) => this.reading([atom]));
    if (!parts.every((part) => part !== null)) return null;
    return (emitter) =>
      parts.map((part) => part(emitter)).reduce((product, size) => emitter.apply('Mul', [product, size]));
  }
}

function sizeOfAxis(emitter: Emitter, name: string, axis: number): string {
  return emitter.apply('Gather', [emitter.apply('Shape', [name]), emitter.ints([axis])], { axis: 0 });
}

/** Sizes of axes at run time as tensors. */
export class Dimensions {
  private readonly sizes: SizeSources;

  constructor(
    site: Derived,
    private readonly emitter: Emitter,
  ) {
    this.sizes = new SizeSources(site);
  }

  /**
   * An int64 tensor of shape [1] that holds the axis' size.
   * @throws Refused where no tensor tells it
   */
  value(axis: Axis): string {
    const reading = this.sizes.reading(axis);
    if (reading === null)
      throw new Refused('layout', 'the size of an axis cannot be read from any tensor of the site', []);
    return reading(this.emitter);
  }

  /** Shape input of a Reshape from `from` to `to`, constant where possible. */
  reshapeTarget(from: readonly Axis[], to: readonly Axis[]): string {
    const entries = reshapeEntries(from, to, this.sizes);
    return entries.filter((entry) => entry === null).length <= 1
      ? this.emitter.ints(entries.map((entry) => entry ?? -1))
      : this.join(to);
  }

  /** A shape tensor of the given axes. */
  join(axes: readonly Axis[]): string {
    const fixed = axes.map((axis) => this.sizes.fixed(axis));
    if (fixed.every((size): size is number => size !== null)) return this.emitter.ints(fixed);
    return this.emitter.apply(
      'Concat',
      axes.map((axis) => this.value(axis)),
      { axis: 0 },
    );
  }
}

/** Entries of a Reshape's shape that are known or copied (0); `null` for the others. */
function reshapeEntries(
  from: readonly Axis[],
  to: readonly Axis[],
  sizes: Pick<SizeSources, 'fixed'>,
): (number | null)[] {
  return to.map((axis, at) => {
    const fixed = sizes.fixed(axis);
    if (fixed !== null) return fixed;
    const source = from[at];
    return source !== undefined && sameAxis(source, axis) ? 0 : null;
  });
}

export interface Relayout {
  /** Operators that it takes. */
  readonly cost: number;
  /** The tensor lacks an axis, along which it is repeated. */
  readonly repeats: boolean;
  /** Every size that it takes at run time can be read. */
  isReadable(sizes: SizeSources): boolean;
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
  isReadable: () => true,
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
      isReadable: (sizes) => canReshape(source, goal, sizes),
      emit: (emitter, dimensions, name, output) =>
        emitter.apply('Reshape', [name, dimensions.reshapeTarget(source, goal)], {}, output),
    };
  }
  const perm = permutation(source, goal);
  if (perm === null) return general(source, goal, missing);
  return {
    cost: 1,
    repeats: false,
    isReadable: () => true,
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

function canJoin(axes: readonly Axis[], sizes: SizeSources): boolean {
  return axes.every((axis) => sizes.reading(axis) !== null);
}

function canReshape(from: readonly Axis[], to: readonly Axis[], sizes: SizeSources): boolean {
  const open = reshapeEntries(from, to, sizes).filter((entry) => entry === null).length;
  return open <= 1 || canJoin(to, sizes);
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
    isReadable: (sizes) =>
      (!splits || canReshape(source, units, sizes)) &&
      (!opens || canReshape(moved, ones, sizes)) &&
      (!expands || canJoin(grown, sizes)) &&
      (!joins || canReshape(expands ? grown : moved, goal, sizes)),
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
