/** What sites give beside the original's on the original's own values: the error of each, with nothing carried from site to site. */
import type { Conversion } from '../conversion.js';
import type { SampleSource } from '../data/source.js';
import { openModel, type Model } from '../onnx/model.js';
import { DistanceMeter, type Distance } from './compare.js';
import type { Runtime } from './runtime.js';
import { sideBySide } from './side-by-side.js';
import type { Variant } from './variant.js';
import type { PlacedModel } from './verify.js';

/** Distances of the values that a conversion makes anew from those in whose places they stand, by name in the original. */
export async function distancesBeside(
  { model, folder }: PlacedModel,
  variant: Variant,
  converted: Model,
  samples: SampleSource,
  runtime: Runtime,
): Promise<Distance[]> {
  const { bytes, pairs } = sideBySide(model, variant, converted);
  if (pairs.length === 0) return [];
  const session = await runtime.open(bytes, folder);
  try {
    const meters = pairs.map((pair) => new DistanceMeter(pair.original));
    for await (const feeds of samples) {
      const values = await session.run(feeds);
      pairs.forEach((pair, i) => meters[i]!.add(values[pair.original]!, values[pair.converted]!));
    }
    return meters.map((meter) => meter.result());
  } finally {
    await session.close();
  }
}

/** The largest relative error of each replaced site of the main graph on the original's own values, by site. */
export async function siteErrors(
  original: PlacedModel,
  conversion: Conversion,
  samples: SampleSource,
  runtime: Runtime,
): Promise<Map<string, number>> {
  const converted = openModel(conversion.toBytes(), original.model.external);
  const distances = await distancesBeside(original, {}, converted, samples, runtime);
  const errors = new Map(distances.map(({ name, maxRelative }) => [name, maxRelative]));
  return new Map(
    conversion.replaced.flatMap(({ site, output }) => {
      const error = errors.get(output.original);
      return error === undefined ? [] : [[site.name, error] as const];
    }),
  );
}
