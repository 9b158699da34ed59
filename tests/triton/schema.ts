/**
 * Checks configurations in protobuf's text format against a schema: every field must exist in its message, have a value
 * of its type and appear once unless it is repeated.
 *
 * The schema is what model_config.proto (triton-inference-server/common) says of the messages that an export can write.
 * With TRITON_MODEL_CONFIG_PROTO=FILE the whole published file is used in its place.
 */
import { readFileSync } from 'node:fs';

interface Field {
  readonly type: string;
  readonly repeated: boolean;
}

/** Fields by message, values by enum (`Message.Enum` where it is declared in a message). */
export interface Schema {
  readonly messages: ReadonlyMap<string, ReadonlyMap<string, Field>>;
  readonly enums: ReadonlyMap<string, ReadonlySet<string>>;
}

const WRITTEN = `
enum DataType { TYPE_BOOL = 1; TYPE_UINT8 = 2; TYPE_UINT16 = 3; TYPE_UINT32 = 4; TYPE_UINT64 = 5; TYPE_INT8 = 6;
  TYPE_INT16 = 7; TYPE_INT32 = 8; TYPE_INT64 = 9; TYPE_FP16 = 10; TYPE_FP32 = 11; TYPE_FP64 = 12; TYPE_STRING = 13;
  TYPE_BF16 = 14; }
message ModelInstanceGroup {
  enum Kind { KIND_AUTO = 0; KIND_GPU = 1; KIND_CPU = 2; KIND_MODEL = 3; }
  string name = 1; int32 count = 2; repeated int32 gpus = 3; Kind kind = 4;
}
message ModelTensorReshape { repeated int64 shape = 1; }
message ModelInput { string name = 1; DataType data_type = 2; repeated int64 dims = 4; ModelTensorReshape reshape = 5; }
message ModelOutput { string name = 1; DataType data_type = 2; repeated int64 dims = 3; ModelTensorReshape reshape = 5; }
message ModelDynamicBatching { repeated int32 preferred_batch_size = 1; uint64 max_queue_delay_microseconds = 2; }
message ModelOperations { repeated string op_library_filename = 1; }
message ModelConfig {
  string name = 1; string platform = 2; int32 max_batch_size = 4; repeated ModelInput input = 5;
  repeated ModelOutput output = 6; repeated ModelInstanceGroup instance_group = 7; string default_model_filename = 8;
  ModelDynamicBatching dynamic_batching = 11; string backend = 17; ModelOperations model_operations = 18;
}`;

export function tritonSchema(): Schema {
  const published = process.env['TRITON_MODEL_CONFIG_PROTO'];
  return readSchema(published === undefined ? WRITTEN : readFileSync(published, 'utf8'));
}

function readSchema(text: string): Schema {
  const messages = new Map<string, Map<string, Field>>();
  const enums = new Map<string, Set<string>>();
  const tokens = text.replace(/\/\/.*$/gm, '').match(/[\w.]+|"[^"]*"|[{}=;<>,]/g) ?? [];
  let at = 0;
  const skipTo = (token: string): void => {
    while (at < tokens.length && tokens[at] !== token) at++;
    at++;
  };
  const readEnum = (scope: string): void => {
    const values = new Set<string>();
    enums.set(scope + tokens[at]!, values);
    for (at += 2; tokens[at] !== '}'; skipTo(';')) values.add(tokens[at]!);
    at++;
  };
  const readBody = (fields: Map<string, Field>, scope: string): void => {
    while (tokens[at] !== '}') {
      const word = tokens[at]!;
      if (word === 'enum') {
        at++;
        readEnum(scope);
      } else if (word === 'message') {
        at++;
        readMessage();
      } else if (word === 'oneof') {
        at += 3;
        readBody(fields, scope);
      } else if (word === 'map') {
        while (tokens[at] !== '>') at++;
        fields.set(tokens[at + 1]!, { type: 'map', repeated: true });
        skipTo(';');
      } else {
        const repeated = word === 'repeated';
        if (repeated) at++;
        fields.set(tokens[at + 1]!, { type: tokens[at]!.split('.').at(-1)!, repeated });
        skipTo(';');
      }
    }
    at++;
  };
  const readMessage = (): void => {
    const fields = new Map<string, Field>();
    const name = tokens[at]!;
    messages.set(name, fields);
    at += 2;
    readBody(fields, `${name}.`);
  };
  while (at < tokens.length) {
    const word = tokens[at++];
    if (word === 'message') readMessage();
    else if (word === 'enum') readEnum('');
    else if (word === 'syntax' || word === 'package') skipTo(';');
  }
  return { messages, enums };
}

export type Value = string | Message;
export type Message = ReadonlyMap<string, readonly Value[]>;

/** Parses and checks a ModelConfig. @throws Error that names the message and field at fault */
export function parseConfig(text: string, schema: Schema): Message {
  const tokens = text.match(/"(?:\\.|[^"\\])*"|-?\w+|[{}[\]:,]/g) ?? [];
  let at = 0;
  const scalar = (where: string, type: string): string => {
    const token = tokens[at++] ?? '';
    const values = schema.enums.get(`${where.split('.')[0]}.${type}`) ?? schema.enums.get(type);
    const isRight =
      values !== undefined
        ? values.has(token)
        : type === 'string'
          ? token.startsWith('"')
          : type === 'bool'
            ? /^(true|false)$/.test(token)
            : /^uint/.test(type)
              ? /^\d+$/.test(token)
              : /^int/.test(type) && /^-?\d+$/.test(token);
    if (!isRight) throw new Error(`${where} is ${token}, must be a value of ${type}`);
    return type === 'string' ? (JSON.parse(token) as string) : token;
  };
  const message = (name: string, end: string | undefined): Message => {
    const fields = schema.messages.get(name);
    if (fields === undefined) throw new Error(`there is no message ${name}`);
    const found = new Map<string, Value[]>();
    while (tokens[at] !== end) {
      const key = tokens[at++]!;
      const field = fields.get(key);
      const where = `${name}.${key}`;
      if (field === undefined) throw new Error(`${where} does not exist`);
      const values = found.get(key) ?? [];
      if (values.length > 0 && !field.repeated) throw new Error(`${where} is given twice`);
      found.set(key, values);
      if (tokens[at] === '{') {
        at++;
        values.push(message(field.type, '}'));
        at++;
      } else {
        if (tokens[at++] !== ':') throw new Error(`${where} has no value`);
        if (tokens[at] !== '[') values.push(scalar(where, field.type));
        else {
          if (!field.repeated) throw new Error(`${where} is no list`);
          for (at++; tokens[at] !== ']';) {
            values.push(scalar(where, field.type));
            if (tokens[at] === ',') at++;
          }
          at++;
        }
      }
    }
    return found;
  };
  return message('ModelConfig', undefined);
}
