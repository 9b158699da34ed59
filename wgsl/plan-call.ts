/** Plans the dispatches of one checked call: heads, attention by slices, the sum of partial results, present rows. */

import type { AttentionSizes } from '../op/constraints.js';
import type { Attributes, InputName } from '../op/schema.js';
import { sizeOf } from '../op/tensor.js';
import type { KernelOptions } from './attention.js';
import {
  bindElements,
  type Binding,
  type Bound,
  maskRows,
  NO_STRIDES,
  partialBinding,
  type Rows,
  rowsOf,
} from './bindings.js';
import { decodeExtent, decodeShader } from './decode.wgsl.js';
import {
  type BindingLimits,
  elementRange,
  lengthOf,
  partsOfKeys,
  queryHeadsOf,
  type Range,
  type Slice,
  sliceCall,
  type SlicedTensor,
} from './plan.js';
import { broadcastExtent, broadcastShader } from './prefill-broadcast.wgsl.js';
import { matrixExtent, matrixShader } from './prefill-matrix.wgsl.js';
import { prefillExtent, prefillShader } from './prefill.wgsl.js';
import type { DeviceResources, Pipeline, PipelineDescription } from './resources.js';
import { appendShader, combineShader, HEADS_SHADER, ROW_KERNEL_THREADS } from './rows.wgsl.js';
import type { ElementLayout } from './shader.js';
import { BYTES_PER_ELEMENT, type CallTensor, type Role } from './tensor.js';
import { encodeProblem, type ProblemFields } from './uniform.js';
import { chooseVariant, type Variant } from './variants.js';

export interface CheckedCall {
  readonly inputs: { readonly [name in InputName]?: CallTensor };
  readonly outputs: {
    readonly Y: CallTensor;
    readonly present_key?: CallTensor;
    readonly present_value?: CallTensor;
  };
  readonly attributes: Attributes;
  readonly sizes: AttentionSizes;
}

const HEAD_BYTES = 32;
/** Larger than any distance between a row and a key. */
const UNBOUNDED = 0x3fffffff;
const MASK_KINDS = { bool: 1, float: 2, float16: 3, int64: 0 } as const;
/** The bits of the field `flags`. */
const FLAGS = { perHead: 1, biasByVisible: 2 } as const;
/** In the order of the bindings of the kernel that gathers them. */
const PER_HEAD_INPUTS = [
  'nonpad_kv_seqlen',
  'head_bias',
  'head_scale',
  'head_gain',
  'alibi_slopes',
] as const satisfies readonly InputName[];

/** One dispatch, complete but for the buffers of the call. */
export interface Step {
  readonly pipeline: Pipeline;
  readonly uniform: GPUBuffer;
  readonly bindings: readonly Bound[];
  readonly grid: readonly [number, number, number];
}

/** What a call comes to: the same for every call of the same shapes, types and attributes. */
export interface CallPlan {
  /** Bytes of Y that are set to 0, where there are no keys. */
  readonly clearBytes: number;
  readonly steps: readonly Step[];
  /** The tensors whose buffers the steps bind. */
  readonly roles: readonly Role[];
}

export class CallPlanner {
  readonly #steps: Step[] = [];
  readonly #resources: DeviceResources;
  readonly #options: KernelOptions;
  readonly #call: CheckedCall;
  readonly #layout: ElementLayout;
  readonly #q: Rows;
  readonly #k: Rows;
  readonly #v: Rows;
  readonly #pastKey: Rows | undefined;
  readonly #pastValue: Rows | undefined;
  readonly #mask: Rows | undefined;
  readonly #maskColumn: number;
  readonly #out: Rows;
  readonly #heads: GPUBuffer | undefined;
  readonly #common: ProblemFields;

  constructor(resources: DeviceResources, options: KernelOptions, call: CheckedCall) {
    this.#resources = resources;
    this.#options = options;
    this.#call = call;
    const { inputs, outputs, sizes } = call;
    const { queryHeads, kvHeads, queryLength, keyLength, pastLength, headSize, valueHeadSize } = sizes;
    this.#layout = elementLayout(call);
    this.#q = rowsOf(inputs.Q!, queryHeads, queryLength, headSize);
    this.#k = rowsOf(inputs.K!, kvHeads, keyLength - pastLength, headSize);
    this.#v = rowsOf(inputs.V!, kvHeads, keyLength - pastLength, valueHeadSize);
    if (pastLength > 0) {
      this.#pastKey = rowsOf(inputs.past_key!, kvHeads, pastLength, headSize);
      this.#pastValue = rowsOf(inputs.past_value!, kvHeads, pastLength, valueHeadSize);
    }
    this.#out = rowsOf(outputs.Y, queryHeads, queryLength, valueHeadSize);
    const mask = inputs.attn_mask === undefined ? undefined : maskRows(inputs.attn_mask, keyLength);
    this.#mask = mask?.rows;
    this.#maskColumn = mask?.column ?? 0;
    this.#heads = hasPerHead(inputs)
      ? resources.scratch('per-head parameters', HEAD_BYTES * sizes.batch * queryHeads)
      : undefined;
    this.#common = commonFields(call);
  }

  plan(): CallPlan {
    const { outputs, sizes } = this.#call;
    const { batch, queryLength, keyLength } = sizes;
    const elements = sizeOf(outputs.Y.dims);
    if (batch === 0 || keyLength === 0)
      return {
        clearBytes: Math.ceil((elements * BYTES_PER_ELEMENT[outputs.Y.type]) / 4) * 4,
        steps: [],
        roles: [],
      };
    if (queryLength > 0) this.#attend();
    if (outputs.present_key !== undefined) this.#append(this.#k, this.#pastKey, outputs.present_key);
    if (outputs.present_value !== undefined) this.#append(this.#v, this.#pastValue, outputs.present_value);
    const bound = this.#steps.flatMap(({ bindings }) => bindings.map(({ buffer }) => buffer));
    const roles = [...new Set(bound.filter((buffer) => typeof buffer === 'string'))];
    return { clearBytes: 0, steps: this.#steps, roles };
  }

  #attend(): void {
    const { sizes } = this.#call;
    const { kvHeads, queryHeads, valueHeadSize } = sizes;
    if (this.#heads !== undefined) this.#gatherHeads(this.#heads);
    const variant = chooseVariant(
      {
        ...sizes,
        isFloat16: this.#layout.type === 'f16' && this.#layout.vectors,
        normalize: this.#call.attributes.normalize === true,
      },
      { ...this.#resources.limits.adapter, ...this.#options.adapter },
    );
    const slices = sliceCall(
      {
        ...sizes,
        group: queryHeads / kvHeads,
        tensors: sliced([
          [this.#q, 'query', 'rows'],
          [this.#out, 'query', 'rows'],
          [this.#mask, 'query', 'rows'],
          [this.#k, 'kv', 'fresh'],
          [this.#v, 'kv', 'fresh'],
          [this.#pastKey, 'kv', 'past'],
          [this.#pastValue, 'kv', 'past'],
        ]),
        partialRowBytes: 16 * (Math.ceil(valueHeadSize / 4) + 1),
        splits: variant.splits,
      },
      this.#bindingLimits,
    );
    for (const slice of slices) this.#attendSlice(variant, slice);
  }

  get #bindingLimits(): BindingLimits {
    const { bindingBytes, bindingAlignment } = this.#resources.limits;
    return {
      maxBytes: this.#options.maxBindingBytes ?? bindingBytes,
      alignment: bindingAlignment,
    };
  }

  #attendSlice(variant: Variant, slice: Slice): void {
    const { sizes } = this.#call;
    const { batch, kvHeads, rows, keyChunks } = slice;
    const group = sizes.queryHeads / sizes.kvHeads;
    const heads = queryHeadsOf(slice, group);
    const valueVectors = Math.ceil(sizes.valueHeadSize / 4);
    const partialRow = 4 * (valueVectors + 1);
    const splits = keyChunks.length * variant.splits;
    const sliceRows = lengthOf(batch) * lengthOf(heads) * lengthOf(rows);
    const partial = splits > 1;
    const parts = partial
      ? this.#resources.scratch('partial sums', 4 * splits * sliceRows * partialRow)
      : undefined;
    const partOf = (split: number): Binding =>
      parts === undefined ? y : partialBinding(parts, { batch, heads, rows }, partialRow, split);
    const q = this.#bind(this.#q, batch, heads, rows);
    const y = this.#bind(this.#out, batch, heads, rows);
    const mask = this.#bind(this.#mask, batch, heads, rows);
    const pipeline = this.#resources.pipeline(this.#attentionPipeline(variant, partial));
    const common: ProblemFields = {
      ...this.#common,
      first_batch: batch.begin,
      first_head: variant.kernel === 'decode' ? kvHeads.begin : heads.begin,
      head_count: lengthOf(variant.kernel === 'decode' ? kvHeads : heads),
      row_begin: rows.begin,
      row_end: rows.end,
      group_begin: slice.group.begin,
      group_count: lengthOf(slice.group),
    };
    keyChunks.forEach((keys, chunk) => {
      const { past, fresh } = partsOfKeys(keys, sizes.pastLength);
      const k = this.#bind(this.#k, batch, kvHeads, fresh);
      const v = this.#bind(this.#v, batch, kvHeads, fresh);
      const pastKey = this.#bind(this.#pastKey, batch, kvHeads, past);
      const pastValue = this.#bind(this.#pastValue, batch, kvHeads, past);
      const out = partOf(chunk * variant.splits);
      this.#dispatch(
        pipeline,
        {
          ...common,
          q: q.strides,
          k: k.strides,
          v: v.strides,
          past_key: pastKey.strides,
          past_value: pastValue.strides,
          mask: mask.strides,
          mask_column: this.#maskColumn,
          out: out.strides,
          key_begin: keys.begin,
          key_end: keys.end,
          splits: variant.splits,
          split_stride: sliceRows * partialRow,
        },
        [q, k, v, pastKey, pastValue, mask, this.#headsBinding, out],
        this.#attentionGrid(variant, slice),
      );
    });
    if (parts === undefined) return;
    const combine = this.#resources.pipeline({
      code: () => combineShader(this.#layout),
      codeKey: `combine ${layoutKey(this.#layout)}`,
      entryPoint: 'combine',
      constants: { NORMALIZE: this.#call.attributes.normalize === true },
    });
    this.#dispatch(
      combine,
      {
        ...common,
        first_head: heads.begin,
        head_count: lengthOf(heads),
        out: y.strides,
        splits,
        rows: sliceRows,
      },
      [partOf(0), this.#headsBinding, y],
      this.#flatGrid(sliceRows * valueVectors),
    );
  }

  #attentionPipeline(variant: Variant, partial: boolean): PipelineDescription {
    const { attributes, inputs } = this.#call;
    const { kernel, tile } = variant;
    const constants = {
      MASK: inputs.attn_mask === undefined ? 0 : MASK_KINDS[inputs.attn_mask.type],
      ALIBI: inputs.alibi_slopes !== undefined,
      SOFTCAP: (attributes.softcap ?? 0) > 0,
      NORMALIZE: attributes.normalize === true,
      PAST: this.#pastKey !== undefined,
    };
    return {
      code: () => sourceOf(variant, this.#layout, partial),
      codeKey: `${kernel} ${layoutKey(this.#layout)} ${Object.values(tile).join(',')} ${partial ? 'partial' : 'whole'}`,
      entryPoint: kernel === 'decode' ? 'decode' : 'prefill',
      constants,
    };
  }

  #attentionGrid(variant: Variant, slice: Slice): [number, number, number] {
    const { queryHeads, kvHeads, valueHeadSize } = this.#call.sizes;
    const depth = lengthOf(slice.batch) * variant.splits;
    if (variant.kernel === 'decode') {
      const { tile } = variant;
      const valueTiles = Math.ceil(valueHeadSize / decodeExtent(tile).valueColumns);
      return [
        Math.ceil((lengthOf(slice.rows) * lengthOf(slice.group)) / tile.rows),
        lengthOf(slice.kvHeads) * valueTiles,
        depth,
      ];
    }
    const extent = extentOf(variant);
    const valueTiles = Math.ceil(valueHeadSize / extent.valueColumns);
    return [
      Math.ceil(lengthOf(slice.rows) / extent.rows),
      lengthOf(queryHeadsOf(slice, queryHeads / kvHeads)) * valueTiles,
      depth,
    ];
  }

  /** A grid of at least `invocations`, two-dimensional where one dimension is too small. */
  #flatGrid(invocations: number): [number, number, number] {
    const groups = Math.ceil(invocations / ROW_KERNEL_THREADS);
    const x = Math.min(groups, this.#resources.limits.workgroupsPerDimension);
    return [x, Math.ceil(groups / x), 1];
  }

  #gatherHeads(heads: GPUBuffer): void {
    const { inputs, sizes, attributes } = this.#call;
    const pipeline = this.#resources.pipeline({
      code: () => HEADS_SHADER,
      codeKey: 'heads',
      entryPoint: 'gather_heads',
      constants: {
        HAS_NONPAD: inputs.nonpad_kv_seqlen !== undefined,
        HAS_HEAD_BIAS: inputs.head_bias !== undefined,
        HAS_HEAD_SCALE: inputs.head_scale !== undefined,
        HAS_HEAD_GAIN: inputs.head_gain !== undefined,
        ALIBI: inputs.alibi_slopes !== undefined,
        OFFSET_BY_NONPAD: inputs.past_key === undefined,
        BIAS_BY_VALID: attributes.bias_mode === 'neg_log_valid',
      },
    });
    const rows = sizes.batch * sizes.queryHeads;
    this.#dispatch(
      pipeline,
      {
        ...this.#common,
        rows,
        head_bias_stride: inputs.head_bias?.dims.length === 2 ? sizes.queryHeads : 0,
        alibi_stride: inputs.alibi_slopes?.dims.length === 2 ? sizes.queryHeads : 0,
      },
      [
        ...PER_HEAD_INPUTS.map((name) => this.#bindWhole(inputs[name])),
        { resource: { buffer: heads }, strides: NO_STRIDES },
      ],
      this.#flatGrid(rows),
    );
  }

  /** present = past and after it the new rows; in pieces of batch entries and heads where a binding is too large. */
  #append(fresh: Rows, past: Rows | undefined, present: CallTensor): void {
    const { kvHeads, keyLength, pastLength } = this.#call.sizes;
    const size = fresh.size;
    if (sizeOf(present.dims) === 0) return;
    const out = rowsOf(present, kvHeads, keyLength, size);
    const pipeline = this.#resources.pipeline({
      code: () => appendShader(this.#layout),
      codeKey: `append ${layoutKey(this.#layout)}`,
      entryPoint: 'append',
      constants: {},
    });
    const slices = sliceCall(
      {
        ...this.#call.sizes,
        group: 1,
        queryLength: 1,
        tensors: sliced([
          [fresh, 'kv', 'fresh'],
          [past, 'kv', 'past'],
          [out, 'kv', 'keys'],
        ]),
        partialRowBytes: 0,
        splits: 1,
      },
      this.#bindingLimits,
    );
    for (const { batch, kvHeads: heads, keyChunks } of slices) {
      for (const keys of keyChunks) {
        const parts = partsOfKeys(keys, pastLength);
        const from = this.#bind(fresh, batch, heads, parts.fresh);
        const fromPast = this.#bind(past, batch, heads, parts.past);
        const to = this.#bind(out, batch, heads, keys);
        const rows = lengthOf(batch) * lengthOf(heads) * lengthOf(keys);
        this.#dispatch(
          pipeline,
          {
            k: from.strides,
            past_key: fromPast.strides,
            out: to.strides,
            past_length: pastLength,
            head_size: size,
            first_batch: batch.begin,
            first_head: heads.begin,
            head_count: lengthOf(heads),
            key_begin: keys.begin,
            key_end: keys.end,
            rows,
          },
          [from, fromPast, to],
          this.#flatGrid(rows * Math.ceil(size / 4)),
        );
      }
    }
  }

  get #headsBinding(): Binding {
    return { resource: { buffer: this.#heads ?? this.#resources.absent }, strides: NO_STRIDES };
  }

  #bindWhole(tensor: CallTensor | undefined): Binding {
    return tensor === undefined
      ? this.#absent
      : this.#bindElements(tensor, { begin: 0, end: sizeOf(tensor.dims) });
  }

  #bind(rows: Rows | undefined, b: Range, h: Range, n: Range): Binding {
    if (rows === undefined) return this.#absent;
    const { batch, head, row, tensor } = rows;
    const bound = this.#bindElements(tensor, elementRange(rows, b, h, n));
    return { ...bound, strides: { ...bound.strides, batch, head, row } };
  }

  #bindElements(tensor: CallTensor, elements: Range): Binding {
    if (lengthOf(elements) === 0) return this.#absent;
    return bindElements(tensor, elements, this.#bindingLimits.alignment);
  }

  get #absent(): Binding {
    return { resource: { buffer: this.#resources.absent }, strides: NO_STRIDES };
  }

  #dispatch(
    pipeline: Pipeline,
    fields: ProblemFields,
    bindings: readonly Binding[],
    grid: readonly [number, number, number],
  ): void {
    const uniform = this.#resources.uniform(encodeProblem(fields));
    this.#steps.push({ pipeline, uniform, bindings: bindings.map(({ resource }) => resource), grid });
  }
}

function sourceOf({ kernel, tile }: Variant, layout: ElementLayout, partial: boolean): string {
  switch (kernel) {
    case 'decode':
      return decodeShader(layout, tile, partial);
    case 'prefill':
      return prefillShader(layout, tile, partial);
    case 'prefill with matrices':
      return matrixShader(layout, tile, partial);
    case 'prefill by broadcasts':
      return broadcastShader(layout, tile, partial);
  }
}

function extentOf({ kernel, tile }: Exclude<Variant, { kernel: 'decode' }>): {
  rows: number;
  valueColumns: number;
} {
  switch (kernel) {
    case 'prefill':
      return prefillExtent(tile);
    case 'prefill with matrices':
      return matrixExtent(tile);
    case 'prefill by broadcasts':
      return broadcastExtent(tile);
  }
}

function sliced(
  tensors: readonly [Rows | undefined, SlicedTensor['heads'], SlicedTensor['along']][],
): SlicedTensor[] {
  return tensors.flatMap(([tensor, heads, along]) =>
    tensor === undefined ? [] : [{ tensor, heads, along }],
  );
}

function elementLayout({ inputs, sizes }: CheckedCall): ElementLayout {
  return {
    type: inputs.Q!.type === 'float16' ? 'f16' : 'f32',
    vectors: sizes.headSize % 4 === 0 && sizes.valueHeadSize % 4 === 0,
  };
}

const layoutKey = ({ type, vectors }: ElementLayout): string => `${type} ${vectors ? 'vectors' : 'scalars'}`;

const hasPerHead = (inputs: CheckedCall['inputs']): boolean =>
  PER_HEAD_INPUTS.some((name) => inputs[name] !== undefined);

/** The fields that are the same for every dispatch of the call. */
function commonFields({ inputs, attributes, sizes }: CheckedCall): ProblemFields {
  const { left_window_size = -1, right_window_size = -1, bias = 0, bias_mode = 'none' } = attributes;
  const right = right_window_size < 0 ? UNBOUNDED : right_window_size;
  const biasByLength =
    bias_mode === 'neg_log_total' || (bias_mode === 'neg_log_valid' && inputs.nonpad_kv_seqlen === undefined);
  return {
    query_heads: sizes.queryHeads,
    group: sizes.queryHeads / sizes.kvHeads,
    query_length: sizes.queryLength,
    key_length: sizes.keyLength,
    past_length: sizes.pastLength,
    head_size: sizes.headSize,
    value_size: sizes.valueHeadSize,
    left_window: left_window_size < 0 ? UNBOUNDED : Math.min(left_window_size, UNBOUNDED),
    right_window: attributes.is_causal ? 0 : Math.min(right, UNBOUNDED),
    row_offset: sizes.pastLength,
    scale: attributes.scale ?? 1 / Math.sqrt(sizes.headSize),
    bias: bias - (biasByLength ? Math.log(sizes.keyLength) : 0),
    softcap: attributes.softcap ?? 0,
    flags:
      (hasPerHead(inputs) ? FLAGS.perHead : 0) + (bias_mode === 'neg_log_visible' ? FLAGS.biasByVisible : 0),
  };
}
