/** Numbers of a labelled tensor, brought into the operator's order of axes: batch, heads, rows, keys. */
import { elementCount } from '../onnx/tensor.js';
import { gatherView, strides, type NumericTensor } from '../graph/numeric.js';
import type { Derived } from './derive.js';
import type { Atom, Axes } from './layout.js';

export interface CanonicalValue {
  /** Each either the full size or 1. */
  readonly dims: readonly [number, number, number, number];
  readonly data: Float64Array;
}

/** Elements up to which masks are worked out. */
const MAX_CANONICAL = 1 << 22;

export function axisGroups(site: Derived): readonly (readonly Atom[])[] {
  return [site.batch, site.heads, site.rows, site.keys];
}

/** `null` when the tensor is too large, or has axes that are none of the four. */
export function canonicalValue(
  site: Derived,
  axes: Axes,
  value: NumericTensor,
  environment: number,
): CanonicalValue | null {
  const steps = new Map<Atom, number>();
  const outer = strides(value.dims);
  const resolved = site.space.resolveAll(axes);
  for (const [axis, atoms] of resolved.entries()) {
    let step = outer[axis]!;
    for (const atom of [...atoms].reverse()) {
      steps.set(atom, step);
      step *= atom.size[environment]!;
    }
  }
  const dims: number[] = [];
  const viewDims: number[] = [];
  const viewSteps: number[] = [];
  let covered = 0;
  for (const group of axisGroups(site)) {
    const atoms = site.space.resolve(group);
    const present = atoms.filter((atom) => steps.has(atom));
    covered += present.length;
    dims.push(present.length === 0 ? 1 : elementCount(atoms.map((atom) => atom.size[environment]!)));
    if (present.length === 0) continue;
    for (const atom of atoms) {
      viewDims.push(atom.size[environment]!);
      viewSteps.push(steps.get(atom) ?? 0);
    }
  }
  if (covered !== steps.size || elementCount(dims) > MAX_CANONICAL) return null;
  return {
    dims: dims as [number, number, number, number],
    data: gatherView(value.data, viewDims, viewSteps, 0),
  };
}
