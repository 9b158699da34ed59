/**
 * The converter: finds attention in ONNX models and puts `ort.sigmoid::SigmoidAttention` in its place. Bytes in, bytes out;
 * nothing here needs Node, so it runs in a browser too. File access is in onnx/file.ts.
 */
export { openModel, type Model } from './onnx/model.js';
export { ModelFormatError } from './onnx/error.js';
export { MemorySource, type ByteSource, type ExternalData } from './onnx/source.js';
export { inspect } from './inspect.js';
export { convert } from './convert.js';
export { REASONS, type ReasonCode } from './reasons.js';
export type {
  CacheForm,
  Inspection,
  MaskKind,
  PassedOver,
  Quantity,
  Site,
  SiteKind,
  SiteValues,
} from './site.js';
export type {
  Conversion,
  ConvertOptions,
  Left,
  Mode,
  Refusal,
  Replacement,
  SiteParameters,
} from './conversion.js';
