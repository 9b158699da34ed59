/**
 * Labelled axes. An axis of a tensor is a product of atoms, most significant first; a Reshape splits and joins them, a
 * Transpose moves them. Two tensors whose axes share atoms run over the same positions, however their shapes are written.
 * An axis of size 1 has no atoms.
 */
import type { Size } from '../graph/knowledge.js';

export class Atom {
  /** Set when the atom turned out to be a product: it stands for its parts from then on. */
  parts: readonly Atom[] | null = null;

  constructor(
    readonly id: number,
    readonly size: Size,
  ) {}
}

export type Axis = readonly Atom[];
export type Axes = readonly Axis[];

export function sameSize(a: Size, b: Size): boolean {
  return a.every((value, i) => value === b[i]);
}

export function isOne(size: Size): boolean {
  return size.every((value) => value === 1);
}

export function product(sizes: readonly Size[], environments: number): number[] {
  return Array.from({ length: environments }, (_, i) => sizes.reduce((total, size) => total * size[i]!, 1));
}

/** Hands out atoms and resolves split ones. One space per site. */
export class AxisSpace {
  private nextId = 0;

  constructor(readonly environments: number) {}

  atom(size: Size): Atom {
    return new Atom(this.nextId++, size);
  }

  /** An axis of its own for every size. */
  axes(sizes: readonly Size[]): Axis[] {
    return sizes.map((size) => this.axis(size));
  }

  axis(size: Size): Axis {
    return isOne(size) ? [] : [this.atom(size)];
  }

  /** The axis with split atoms replaced by their parts. */
  resolve(axis: Axis): Axis {
    for (const atom of axis) {
      if (atom.parts !== null)
        return axis.flatMap((entry) => (entry.parts === null ? [entry] : this.resolve(entry.parts)));
    }
    return axis;
  }

  resolveAll(axes: Axes): Axis[] {
    return axes.map((axis) => this.resolve(axis));
  }

  sizeOf(axis: Axis): number[] {
    return product(
      this.resolve(axis).map((atom) => atom.size),
      this.environments,
    );
  }

  /** Splits an atom into an outer part and an inner one of size `inner`; `null` when that does not divide. */
  split(atom: Atom, outer: Size, inner: Size): readonly [Atom, Atom] | null {
    if (!atom.size.every((size, i) => outer[i]! * inner[i]! === size)) return null;
    const parts = [this.atom(outer), this.atom(inner)] as const;
    atom.parts = parts;
    return parts;
  }

  /** Axes after a Reshape to `sizes`, keeping element order; `null` when the axes cannot be cut that way. */
  reshape(axes: Axes, sizes: readonly Size[]): Axis[] | null {
    const pending = this.resolveAll(axes).flat();
    const out: Axis[] = [];
    for (const target of sizes) {
      const axis: Atom[] = [];
      let rest: number[] = [...target];
      while (!isOne(rest)) {
        const atom = pending.shift();
        if (atom === undefined) return null;
        if (atom.size.every((size, i) => rest[i]! % size === 0)) {
          axis.push(atom);
          rest = rest.map((size, i) => size / atom.size[i]!);
        } else {
          if (!atom.size.every((size, i) => size % rest[i]! === 0)) return null;
          const inner = atom.size.map((size, i) => size / rest[i]!);
          const parts = this.split(atom, rest, inner);
          if (parts === null) return null;
          axis.push(parts[0]);
          pending.unshift(parts[1]);
          rest = rest.map(() => 1);
        }
      }
      out.push(axis);
    }
    return pending.length === 0 ? out : null;
  }

  /** Cuts the axis so that its trailing atoms have size `inner`. */
  splitTail(axis: Axis, outer: Size, inner: Size): { outer: Axis; inner: Axis } | null {
    const cut = this.reshape([axis], [outer, inner]);
    return cut === null ? null : { outer: cut[0]!, inner: cut[1]! };
  }

  equal(a: Axis, b: Axis): boolean {
    const left = this.resolve(a);
    const right = this.resolve(b);
    return left.length === right.length && left.every((atom, i) => atom === right[i]);
  }
}
