"""The fields of other servers that would change an answer and that this server does not have, each with what to send
instead.
"""

from __future__ import annotations

from intaglio.api.openai.fields.field import Field, Route, Treatment

_BOTH = frozenset(Route)
_ONLY_CHAT = frozenset({Route.CHAT})
_ONLY_COMPLETIONS = frozenset({Route.COMPLETIONS})
_NO_REASONING = "these models write no reasoning that could be longer or shorter; leave it out"
_NO_SUCH_SAMPLER = "it is not among the samplers here; use temperature, top_k, min_p, top_p or the penalties"
_TOOLS = "tools are for chat/completions"
_TURNS = "it is for chat/completions: a prompt has no turns"
_TOKENIZE = "send the text to /tokenize, which lists its token ids"


def _field(name: str, note: str, *passes: object, routes: frozenset[Route] = _BOTH) -> Field:
    return Field(name, routes, Treatment.REFUSED, note, passes=passes)


# Published by OpenAI.
_OPENAI = (
    _field("audio", "this server answers in text; leave it out"),
    _field("modalities", 'this server answers in text: ["text"]', ["text"]),
    _field("moderation", "this server judges no texts; leave it out"),
    _field("functions", "send them as 'tools'", routes=_ONLY_CHAT),
    _field("function_call", "send it as 'tool_choice'", "none", routes=_ONLY_CHAT),
    _field("functions", _TOOLS, routes=_ONLY_COMPLETIONS),
    _field("function_call", _TOOLS, "none", routes=_ONLY_COMPLETIONS),
    _field("tools", _TOOLS, routes=_ONLY_COMPLETIONS),
    _field("tool_choice", _TOOLS, "none", routes=_ONLY_COMPLETIONS),
    _field("parallel_tool_calls", _TOOLS, True, False, routes=_ONLY_COMPLETIONS),
    _field("reasoning_effort", _NO_REASONING, "none"),
    _field("service_tier", "this server has one tier: auto or default", "auto", "default"),
    _field("store", "completions are not stored here; /v1/responses stores them", False),
    _field("suffix", "these models do not fill in text between two others; send the text before it as the prompt",
           routes=_ONLY_COMPLETIONS),
    _field("verbosity", "say in the prompt how long the answer should be", "medium"),
    _field("web_search_options", "this server does not search the web; put what it should know into the messages"),
    _field("messages", "messages are for chat/completions; send a prompt", routes=_ONLY_COMPLETIONS),
    _field("prompt", "a prompt is for completions; send messages", routes=_ONLY_CHAT),
    _field("best_of", "send 'n': every answer that is made is sent", 1, routes=_ONLY_CHAT),
    _field("top_logprobs", "send 'logprobs' with their number", 0, routes=_ONLY_COMPLETIONS),
)  # fmt: skip

# Published by vLLM.
_VLLM = (
    _field("add_generation_prompt", _TURNS, True, False, routes=_ONLY_COMPLETIONS),
    _field("continue_final_message", _TURNS, False, routes=_ONLY_COMPLETIONS),
    _field("add_special_tokens", "a text gets its BOS, and a chat what its template says; send token ids to "
           "completions to choose others", True, routes=_ONLY_COMPLETIONS),
    _field("add_special_tokens", "a chat gets what its template says; send token ids to completions to choose others",
           False, routes=_ONLY_CHAT),
    _field("allowed_token_ids", "use structured_outputs, or logit_bias"),
    _field("bad_words", "use logit_bias with -100 for their tokens"),
    _field("chat_template", "the model's own template is used; send the prompt to completions to write it yourself"),
    _field("chat_template_kwargs", "no template here reads other values than the messages and tools",
           {}, {"enable_thinking": False}, {"thinking": False}),
    _field("documents", "put them into a message"),
    _field("ec_transfer_params", "this server computes all of a request itself; leave it out", {}),
    _field("kv_transfer_params", "this server computes all of a request itself; leave it out", {}),
    _field("guided_whitespace_pattern", "JSON has one space, or a line break and its indentation; leave it out"),
    _field("length_penalty", "beams are not searched; 1.0 is without effect", 1),
    _field("logit_processors", "use logit_bias, or structured_outputs"),
    _field("logits_processors", "use logit_bias, or structured_outputs"),
    _field("logprob_token_ids", "ask for the most probable ones with 'logprobs'"),
    _field("priority", "all requests have one priority, 0; a batch runs when nothing else does", 0),
    _field("prompt_embeds", "send a text or token ids as 'prompt'"),
    _field("repetition_detection", "use 'repetition_penalty' or 'max_tokens'"),
    _field("request_id", "the server makes the id: it is the answer's id and a header"),
    _field("return_prompt_text", "send the messages to /tokenize, which lists the prompt's tokens", False),
    _field("return_token_ids", _TOKENIZE, False),
    _field("return_token_offsets", _TOKENIZE, False),
    _field("routed_experts_prompt_start", "these models have no experts; leave it out", 0),
    _field("use_beam_search", "send 'n' with a temperature for several answers", False),
    _field("vllm_xargs", "no extensions read them; leave it out", {}),
    _field("watermarking", "completions have no watermark; leave it out", False),
)  # fmt: skip

# Published by llama.cpp's server and SGLang's.
_OTHERS = (
    _field("dry_multiplier", _NO_SUCH_SAMPLER, 0),
    _field("dynatemp_range", _NO_SUCH_SAMPLER, 0),
    _field("ebnf", "send it as 'guided_grammar' or 'structured_outputs.grammar'"),
    _field("grammar", "send it as 'guided_grammar' or 'structured_outputs.grammar'"),
    _field("json_schema", "send it in 'response_format' or as 'guided_json'"),
    _field("lora_path", "name the adapter in 'lora' or 'model'"),
    _field("mirostat", _NO_SUCH_SAMPLER, 0),
    _field("n_predict", "send it as 'max_tokens'"),
    _field("n_probs", "send it as 'logprobs'", 0),
    _field("no_stop_trim", "send it as 'include_stop_str_in_output'", False),
    _field("raw", "send the prompt to completions, where it is raw", False, routes=_ONLY_CHAT),
    _field("raw", "send the text in 'messages' to chat/completions", True, routes=_ONLY_COMPLETIONS),
    _field("regex", "send it as 'guided_regex' or 'structured_outputs.regex'"),
    _field("repeat_penalty", "send it as 'repetition_penalty'", 1),
    _field("return_hidden_states", "only texts and log-probabilities are sent", False),
    _field("samplers", "the order of the samplers is fixed: temperature, min_p, top_k, top_p"),
    _field("top_n_sigma", _NO_SUCH_SAMPLER, -1),
    _field("typical_p", _NO_SUCH_SAMPLER, 1),
    _field("xtc_probability", _NO_SUCH_SAMPLER, 0),
)

REFUSED: tuple[Field, ...] = (*_OPENAI, *_VLLM, *_OTHERS)
