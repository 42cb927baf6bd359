/**
 * A client for semroute: which model should answer a query, and the answer itself.
 *
 * Requests and events are plain objects with the fields of the contract (proto/semroute/v1) in
 * camelCase. Enum values go by their names, such as 'SENSITIVITY_RESTRICTED'.
 */
import { fileURLToPath } from 'node:url';

import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';

import { RouterError } from './errors.js';

export { RouterError };

const PACKAGE = 'semroute.v1';
const CLONE = fileURLToPath(new URL('../../proto', import.meta.url));
const MAX_MESSAGE_BYTES = 16 * 1024 * 1024;

// A decision costs nothing and is tried again; an answer may have been paid for, and never is.
const RETRY_DECIDE = {
  name: [{ service: `${PACKAGE}.RouterService`, method: 'Decide' }],
  retryPolicy: {
    maxAttempts: 4,
    initialBackoff: '0.1s',
    maxBackoff: '1s',
    backoffMultiplier: 2,
    retryableStatusCodes: ['UNAVAILABLE'],
  },
};
const CHANNEL_OPTIONS = {
  'grpc.service_config': JSON.stringify({ methodConfig: [RETRY_DECIDE] }),
  'grpc.enable_http_proxy': 0, // a query goes to the address that was given and to no other
  'grpc.keepalive_time_ms': 60_000,
  'grpc.keepalive_timeout_ms': 20_000,
  'grpc.max_receive_message_length': MAX_MESSAGE_BYTES,
  'grpc.max_send_message_length': MAX_MESSAGE_BYTES,
};

/**
 * @typedef {{role: string, text?: string, parts?: object[]}} Message
 *
 * @typedef {{tenant?: string, region?: string, sensitivity?: string, localOnly?: boolean}} Caller
 *
 * @typedef {object} DecideOptions
 * @property {string} [profile] the profile to use; the server's active one where absent
 * @property {Caller} [caller] what governance may ask about the one who asks
 * @property {object} [preferences] the contract's Preferences, such as `{ model: 'coder' }`
 * @property {string} [sessionId]
 * @property {number} [timeoutSeconds]
 *
 * @typedef {object} CompleteFields
 * @property {{temperature?: number, topP?: number, maxTokens?: number, stop?: string[],
 *   seed?: number}} [sampling]
 * @property {{name: string, description?: string, parametersSchema?: string}[]} [tools]
 * @property {{mode: string} | {tool: string}} [toolChoice]
 * @property {{type: string, name?: string, schema?: string, strict?: boolean}} [responseFormat]
 * @property {boolean} [allowRestart]
 *
 * @typedef {DecideOptions & CompleteFields} CompleteOptions
 *
 * @typedef {{event: 'decision', decision: object}
 *   | {event: 'delta', delta: {text: string, reasoning: string, toolCalls: object[]}}
 *   | {event: 'attempt', attempt: object}
 *   | {event: 'restart', restart: {model: string, backend: string, reason: string}}
 *   | {event: 'finish', finish: object}} CompletionEvent
 */

/** One channel to a semroute server. Every failed call is a `RouterError`. */
export class RouterClient {
  #contract;
  #router;

  /**
   * @param {string} [address] host:port
   * @param {{proto?: string, credentials?: grpc.ChannelCredentials}} [options] `proto` is the
   *   folder that holds semroute/v1/router.proto, by default the clone's; `credentials` make the
   *   channel TLS
   */
  constructor(
    address = '127.0.0.1:50051',
    { proto = CLONE, credentials = grpc.credentials.createInsecure() } = {},
  ) {
    this.#contract = protoLoader.loadSync('semroute/v1/router.proto', {
      includeDirs: [proto],
      longs: Number,
      enums: String,
      defaults: true,
      oneofs: true,
    });
    const { RouterService } = grpc.loadPackageDefinition(this.#contract).semroute.v1;
    this.#router = new RouterService(address, credentials, CHANNEL_OPTIONS);
  }

  /**
   * The decision alone; no backend is called and nothing is spent.
   *
   * @param {string | Message[]} query a user's text, or a conversation, oldest message first
   * @param {DecideOptions} [options]
   * @returns {Promise<object>} the contract's Decision
   */
  async decide(query, { timeoutSeconds = 10, ...options } = {}) {
    const request = this.#request('DecideRequest', query, options);
    return new Promise((resolve, reject) => {
      this.#router.decide(request, { deadline: after(timeoutSeconds) }, (error, response) =>
        error ? reject(RouterError.from(error)) : resolve(response.decision),
      );
    });
  }

  /**
   * Decide, then stream the answer: a decision, deltas, and a finish where the answer is whole.
   * Leaving the loop cancels the call.
   *
   * @param {string | Message[]} query a user's text, or a conversation, oldest message first
   * @param {CompleteOptions} [options]
   * @returns {AsyncGenerator<CompletionEvent, void, void>}
   */
  async *complete(query, { timeoutSeconds = 300, ...options } = {}) {
    const request = this.#request('CompleteRequest', query, options);
    const call = this.#router.complete(request, { deadline: after(timeoutSeconds) });
    call.on('error', () => {}); // the loop below raises it; after the loop nobody asks
    try {
      yield* call;
    } catch (error) {
      throw RouterError.from(error);
    } finally {
      call.cancel();
    }
  }

  /** Close the channel; calls that are under way end first. */
  close() {
    this.#router.close();
  }

  /** A request from a query and the options beside it, which are the request's own fields. */
  #request(type, query, { caller, sessionId, ...fields }) {
    const messages = typeof query === 'string' ? [{ role: 'ROLE_USER', text: query }] : query;
    const request = { query: { messages, caller, sessionId }, ...fields };
    this.#check(request, type, type);
    return request;
  }

  /**
   * Throw a TypeError where the contract has no such field or enum value. The serialiser would
   * drop it silently, and a `local_only` that is dropped sends a query out of the building.
   */
  #check(value, type, path) {
    const { field: fields } = this.#contract[`${PACKAGE}.${type}`].type;
    for (const [name, content] of Object.entries(value)) {
      const field = fields.find((known) => known.name === name);
      if (!field) throw unknown(`${path}.${name}`, fields);
      for (const item of [content ?? []].flat()) {
        if (field.type === 'TYPE_MESSAGE') this.#check(item, field.typeName, `${path}.${name}`);
        if (field.type === 'TYPE_ENUM') this.#checkEnum(item, field.typeName, `${path}.${name}`);
      }
    }
  }

  #checkEnum(value, type, path) {
    const { value: values } = this.#contract[`${PACKAGE}.${type}`].type;
    if (!values.some(({ name }) => name === value)) throw unknown(`${path} ${value}`, values);
  }
}

function unknown(what, known) {
  return new TypeError(`${what} is unknown; known: ${known.map(({ name }) => name).join(', ')}`);
}

function after(seconds) {
  return Date.now() + seconds * 1000;
}
