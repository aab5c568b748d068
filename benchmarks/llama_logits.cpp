// Writes llama.cpp's logits of every token of a text, with its default settings except the number of threads.
//
//   llama_logits MODEL.gguf THREADS < token ids as int32 > logits as float32, [tokens, vocabulary]
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "llama.h"

static void check(bool is_fine, const char* what) {
    if (is_fine) return;
    std::fprintf(stderr, "llama_logits: %s\n", what);
    std::exit(1);
}

int main(int argc, char** argv) {
    check(argc == 3, "llama_logits MODEL.gguf THREADS");
    std::vector<llama_token> ids(1 << 16);
    ids.resize(std::fread(ids.data(), sizeof ids[0], ids.size(), stdin));
    check(!ids.empty(), "there are no token ids on standard input");

    llama_log_set(
        [](ggml_log_level level, const char* text, void*) {
            if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
        },
        nullptr);
    llama_backend_init();
    llama_model* model = llama_model_load_from_file(argv[1], llama_model_default_params());
    check(model, "the model cannot be loaded");
    llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = ids.size();
    params.n_threads = params.n_threads_batch = std::atoi(argv[2]);
    llama_context* context = llama_init_from_model(model, params);
    check(context, "the context cannot be created");

    llama_batch batch = llama_batch_init(ids.size(), 0, 1);
    batch.n_tokens = ids.size();
    for (size_t i = 0; i < ids.size(); i++) {
        batch.token[i] = ids[i];
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = true;
    }
    check(llama_decode(context, batch) == 0, "the text cannot be decoded");
    const size_t vocabulary = llama_vocab_n_tokens(llama_model_get_vocab(model));
    for (size_t i = 0; i < ids.size(); i++)
        check(std::fwrite(llama_get_logits_ith(context, i), sizeof(float), vocabulary, stdout) == vocabulary,
              "the logits cannot be written");
}
