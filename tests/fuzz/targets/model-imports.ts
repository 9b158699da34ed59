/** The look at a model's imports that decides which path a session takes (op/node/model-imports.ts). */
import { openModel } from '../../../converter/onnx/model.js';
import { readModelImports } from '../../../op/node/model-imports.js';
import { Violation, type Target } from '../target.js';

/** A longer domain is not looked at. */
const MAX_DOMAIN_BYTES = 1024;

export const target: Target = {
  shape: 'protobuf',
  maxLength: 1 << 13,
  async run(input) {
    const imports = await readModelImports(input);
    let domains: string[];
    try {
      domains = [...openModel(input).opsets.keys()];
    } catch {
      return;
    }
    const missing = domains.find(
      (domain) => domain !== '' && domain.length * 3 <= MAX_DOMAIN_BYTES && !imports?.domains.has(domain),
    );
    if (missing !== undefined) throw new Violation(`the import of '${missing}' was missed`);
  },
  isClear: () => false,
};
