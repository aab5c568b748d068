#!/usr/bin/env bash
# curl, as Cloudflare's documentation writes it: bodies without a JSON content type, finetune paths that end in a slash,
# -X POST, --form, "raw": "true" as a string. Every answer is one line of JSON.
set -euo pipefail

AUTH="Authorization: Bearer any"
A="$BASE_URL/accounts/$ACCOUNT/ai"
RAW='"raw": true, "temperature": 0, "max_tokens": 12'

prompt() { curl -sS "$A/run/$MODEL" -X POST -H "$AUTH" -d "{\"prompt\": \"$PROMPT\", $RAW}"; }

chat() {
  curl -sS "$A/run/$MODEL" -H "$AUTH" -d '{
    "temperature": 0,
    "max_tokens": 12,
    "messages": [{"role": "user", "content": "'"$QUESTION"'"}]
  }'
}

# The events' JSON, put into a list.
stream() {
  echo "[$(curl -sSN "$A/run/$MODEL" -H "$AUTH" -d "{\"prompt\": \"$PROMPT\", \"stream\": true, $RAW}" |
    sed -n 's/^data: //p' | sed 's/^\[DONE\]$/"[DONE]"/' | paste -sd, -)]"
}

adapter() { curl -sS "$A/run/$MODEL" -H "$AUTH" -d "{\"prompt\": \"$PROMPT\", \"lora\": \"$ADAPTER\", $RAW}"; }

demo_adapter() {
  curl -sS "$A/run/$MODEL" -X POST -H "$AUTH" -d '{
    "messages": [{"role": "user", "content": "'"$QUESTION"'"}],
    "raw": "true",
    "lora": "'"$DEMO_ADAPTER"'",
    "temperature": 0,
    "max_tokens": 12
  }'
}

create_finetune() {
  curl -sS -X POST "$A/finetunes/" -H "$AUTH" -H "Content-Type: application/json" --data '{
    "model": "'"$MODEL"'",
    "name": "'"$NEW_ADAPTER"'",
    "description": "made with curl"
  }'
}

upload_weights() { upload adapter_model.safetensors; }

upload_config() { upload adapter_config.json; }

upload() {
  curl -sS -X POST "$A/finetunes/$NEW_ADAPTER/finetune-assets/" -H "$AUTH" -H "Content-Type: multipart/form-data" \
    --form "file_name=$1" --form "file=@$ADAPTER_FOLDER/$1"
}

list_finetunes() { curl -sS "$A/finetunes/" -H "$AUTH"; }

public_finetunes() { curl -sS "$A/finetunes/public/" -H "$AUTH"; }

own_adapter() { curl -sS "$A/run/$MODEL" -H "$AUTH" -d "{\"prompt\": \"$PROMPT\", \"lora\": \"$NEW_ADAPTER\", $RAW}"; }

models() { curl -sS "$A/models/search?task=Text%20Generation" -H "$AUTH"; }

schema() { curl -sS "$A/models/schema?model=${MODEL//\//%2F}" -H "$AUTH"; }

errors() { curl -sS "$A/run/$MODEL" -H "$AUTH" -d '{"prompt": "Hi", "lora": "no-such-adapter"}'; }

structured() {
  curl -sS "$A/run/$MODEL" -H "$AUTH" -d '{
    "messages": [{"role": "user", "content": "'"$QUESTION"'"}],
    "response_format": {"type": "json_schema", "json_schema": '"$SCHEMA"'},
    "lora": "'"$DEMO_ADAPTER"'",
    "temperature": 0,
    "max_tokens": 200
  }'
}

tools() {
  curl -sS "$A/run/$MODEL" -H "$AUTH" -d '{
    "messages": [{"role": "user", "content": "'"$QUESTION"'"}],
    "tools": ['"$TOOL"'],
    "tool_choice": "required",
    "temperature": 0,
    "max_tokens": 64
  }'
}

logprobs() {
  curl -sS "$A/v1/chat/completions" -H "$AUTH" -H "Content-Type: application/json" -d '{
    "model": "'"$MODEL"'",
    "messages": [{"role": "user", "content": "'"$QUESTION"'"}],
    "logprobs": true,
    "temperature": 0,
    "max_tokens": 12
  }'
}

queue_batch() {
  curl -sS "$A/run/$MODEL?queueRequest=true" -H "$AUTH" -d "{
    \"requests\": [
      {\"prompt\": \"$PROMPT\", \"external_reference\": \"first\", $RAW},
      {\"prompt\": \"$PROMPT\", \"external_reference\": \"second\", \"lora\": \"$ADAPTER\", $RAW}
    ]
  }"
}

# Asks again until the answer is there.
batch() {
  local id answer
  id=$(queue_batch | sed 's/.*"request_id":"\([^"]*\)".*/\1/')
  for _ in {1..200}; do
    answer=$(curl -sS "$A/run/$MODEL?queueRequest=true" -H "$AUTH" -d "{\"request_id\": \"$id\"}")
    if [[ $answer == *'"responses"'* ]]; then break; fi
    sleep 0.1
  done
  echo "$answer"
}

separator="{"
for name in prompt chat stream adapter demo_adapter create_finetune upload_weights upload_config list_finetunes \
  public_finetunes own_adapter models schema errors structured tools logprobs batch; do
  printf '%s"%s":{"value":%s}' "$separator" "$name" "$("$name")"
  separator=","
done
printf '}\n'
