/** Captures what goes into the operator of converted sites, run after run. */
import type { InputName } from '../../op/schema.js';
import { numberToBfloat16, numberToFloat16 } from '../../op/half.js';
import type { Replacement } from '../conversion.js';
import type { Feeds } from '../data/tensor.js';
import type { SampleSource } from '../data/source.js';
import { openModel, type Model } from '../onnx/model.js';
import { dataTypeName, tensorNumbers, type StoredTensor } from '../onnx/tensor.js';
import type { Runtime, Session } from '../verify/runtime.js';
import { variantOf } from '../verify/variant.js';
import { attentionAttributes, attentionInputs, CapturedCall, type RunTensor } from './captured-call.js';

export interface Captured {
  readonly replacement: Replacement;
  readonly call: CapturedCall;
}

/** A session that yields the operator inputs of some sites. */
export interface Collector {
  /** The calls of one run, in the order of the sites. */
  run(feeds: Feeds): Promise<Captured[]>;
  close(): Promise<void>;
}

/** Sites whose calls can be seen: those of the main graph. */
export const isVisible = ({ site }: Replacement): boolean => site.scope === '';

/** @param bytes the converted model; only the part that feeds the sites is run */
export async function openCollector(
  bytes: Uint8Array,
  original: Model,
  folder: string,
  sites: readonly Replacement[],
  runtime: Runtime,
): Promise<Collector> {
  const model = openModel(bytes, original.external);
  const names = new Set(sites.flatMap(({ inputs }) => Object.values(inputs)));
  const inputs = new Set(model.graph.inputs.map(({ name }) => name));
  const constants = new Map<string, RunTensor>();
  for (const name of names) {
    const tensor = model.graph.initializers.get(name);
    if (tensor) constants.set(name, constantTensor(model, tensor));
  }
  const computed = [...names].filter((name) => !constants.has(name) && !inputs.has(name));
  const session: Session | null =
    computed.length === 0
      ? null
      : await runtime.open(variantOf(model, { outputs: computed, outputsOnly: true }), folder);
  return {
    run: async (feeds) => {
      const values = session ? await session.run(feeds) : {};
      const valueOf = (name: string): RunTensor => constants.get(name) ?? values[name] ?? feeds[name]!;
      return sites.map((replacement) => {
        const entries = Object.entries(replacement.inputs).map(([input, name]) => [input, valueOf(name)]);
        const tensors = Object.fromEntries(entries) as Partial<Record<InputName, RunTensor>>;
        const attributes = attentionAttributes(replacement.attributes);
        return { replacement, call: new CapturedCall(attentionInputs(tensors), attributes) };
      });
    },
    close: async () => session?.close(),
  };
}

/** Calls of every run of the samples. */
export async function* collected(collector: Collector, samples: SampleSource): AsyncGenerator<Captured[]> {
  for await (const feeds of samples) yield await collector.run(feeds);
}

function constantTensor(model: Model, stored: StoredTensor): RunTensor {
  const type = dataTypeName(stored.dataType);
  const numbers = tensorNumbers(stored, model.source, model.external);
  if (!numbers) throw new Error(`constant "${stored.name}": its numbers are not at hand`);
  return { type, dims: stored.dims, data: encoded(numbers, type) };
}

function encoded(numbers: Float64Array, type: string): unknown {
  switch (type) {
    case 'float16':
      return Uint16Array.from(numbers, numberToFloat16);
    case 'bfloat16':
      return Uint16Array.from(numbers, numberToBfloat16);
    case 'bool':
      return Uint8Array.from(numbers);
    case 'int64':
      return BigInt64Array.from(Array.from(numbers, BigInt));
    default:
      return Float32Array.from(numbers);
  }
}
