/** The whole converter on hostile models: inspect, then convert in a mode that the length of the input picks. */
import { convert, inspect, ModelFormatError, openModel, type Mode } from '../../../converter/index.js';
import { MemorySource } from '../../../converter/onnx/source.js';
import { Violation, type Target } from '../target.js';

const MODES: readonly Mode[] = ['faithful', 'fuse', 'paper'];

const external = new MemorySource(new Uint8Array(256));

export const target: Target = {
  shape: 'protobuf',
  maxLength: 1 << 15,
  run(input) {
    const model = openModel(input, () => external);
    const before = inspect(model).sites.length;
    const conversion = convert(model, { mode: MODES[input.length % MODES.length]! });
    if (conversion.replaced.length === 0) return;
    const bytes = conversion.toBytes();
    if (bytes.length !== conversion.size) {
      throw new Violation(`the result has ${bytes.length} bytes, said were ${conversion.size}`);
    }
    const after = inspect(openModel(bytes, () => external)).sites.length;
    if (after > before - conversion.replaced.length) {
      throw new Violation(
        `${conversion.replaced.length} of ${before} sites are replaced and ${after} are there`,
      );
    }
  },
  isClear: (error) =>
    (error as Error).name === ModelFormatError.prototype.name || error instanceof ModelFormatError,
};
