/** The mask over keys of the contrib operators, in each of the forms that they take. */
import type { Emitter } from '../../rewrite/emitter.js';
import type { Knowledge } from '../../graph/knowledge.js';
import { floatAttribute, type GraphNode } from '../../graph/node.js';
import { DataType } from '../../onnx/tensor.js';
import type { ScoreForm } from '../form.js';
import { fixed, sizesOf, unsupported, type CallAxes } from '../fused-call.js';
import { sameSize, type Axis } from '../layout.js';
import type { Prelude } from './prelude.js';

interface KeyMask {
  readonly nonpad: string | null;
}

/** A mask over keys as the contrib operators take it: lengths [B], ends and starts [2B], 0 and 1 of [B,T] or [B,N,T]. */
export function addKeyMask(
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
