// A CUDA backend whose memory is the host's: tensors say that they are on cuda:0, and every operator runs as the CPU's.
//
// What makes it worth having is what it refuses. An operator whose tensors are on two devices, an index that is on the
// device while the indexed tensor is not, and a generator of the host raise what CUDA raises. PyTorch itself does the
// rest, as on a GPU: `.numpy()`, parameters that move, autograd's own thread for the device.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <mutex>
#include <unordered_map>
#include <unordered_set>

namespace {
using namespace c10;

const Device HOST(DeviceType::CPU), CARD(DeviceType::CUDA, 0);

// ---- memory -------------------------------------------------------------------------------------------------------

std::atomic<int64_t> in_use{0}, peak{0};

void account(int64_t bytes) {
  auto now = in_use += bytes;
  for (auto seen = peak.load(); now > seen && !peak.compare_exchange_weak(seen, now);) {}
}

// Keeps the host's memory for as long as the card's storage, which is the same memory, is alive.
struct Kept {
  DataPtr memory;
  int64_t bytes;
};

DataPtr on_card(DataPtr memory, int64_t bytes) {
  account(bytes);
  void* place = memory.get();
  auto free = [](void* kept) {
    account(-static_cast<Kept*>(kept)->bytes);
    delete static_cast<Kept*>(kept);
  };
  return {place, new Kept{std::move(memory), bytes}, free, CARD};
}

struct CardAllocator final : Allocator {
  DataPtr allocate(size_t bytes) override { return on_card(GetDefaultCPUAllocator()->allocate(bytes), bytes); }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
} card_allocator;

std::mutex pins;
std::unordered_set<const void*> pinned;

struct PinnedAllocator final : Allocator {
  DataPtr allocate(size_t bytes) override {
    auto memory = GetDefaultCPUAllocator()->allocate(bytes);
    void* place = memory.get();
    std::lock_guard<std::mutex> lock(pins);
    pinned.insert(place);
    auto free = [](void* kept) {
      std::lock_guard<std::mutex> lock(pins);
      pinned.erase(static_cast<Kept*>(kept)->memory.get());
      delete static_cast<Kept*>(kept);
    };
    return {place, new Kept{std::move(memory), 0}, free, HOST};
  }
  void copy_data(void* to, const void* from, size_t bytes) const override { default_copy_data(to, from, bytes); }
} pinned_allocator;

// ---- generators ---------------------------------------------------------------------------------------------------

// A generator of the card draws the host's numbers. While an operator runs it passes for one of the host.
struct CardGenerator final : at::CPUGeneratorImpl {
  explicit CardGenerator(uint64_t seed = default_rng_seed_val) : CPUGeneratorImpl(seed) { be(CARD); }
  void be(Device device) { device_ = device; }
};

// ---- operators ----------------------------------------------------------------------------------------------------

// `like` in another storage. A view has the keys of what it is a view of: in inference mode not every tensor is one of it.
at::Tensor with(Storage storage, const at::Tensor& like, DispatchKey key, const at::Tensor* viewed = nullptr) {
  auto impl = viewed == nullptr
      ? make_intrusive<TensorImpl>(std::move(storage), DispatchKeySet(key), like.dtype())
      : make_intrusive<TensorImpl>(TensorImpl::VIEW, std::move(storage), viewed->key_set(), like.dtype());
  impl->set_sizes_and_strides(like.sizes(), like.strides(), like.storage_offset());
  return at::Tensor(std::move(impl));
}

// The tensors of one call, on their way to the host and back.
struct Call {
  std::unordered_map<StorageImpl*, Storage> there, back;  // card -> host, host -> card

  at::Tensor host(const at::Tensor& t) {
    if (!t.defined() || !t.is_cuda()) return t;
    auto found = there.find(t.storage().unsafeGetStorageImpl());
    if (found == there.end()) {
      auto keep = [](void* kept) { delete static_cast<Storage*>(kept); };
      DataPtr memory(t.storage().mutable_data(), new Storage(t.storage()), keep, HOST);
      Storage storage(Storage::use_byte_size_t(), t.storage().nbytes(), std::move(memory), GetDefaultCPUAllocator(), true);
      back[storage.unsafeGetStorageImpl()] = t.storage();
      found = there.emplace(t.storage().unsafeGetStorageImpl(), std::move(storage)).first;
    }
    return with(found->second, t, DispatchKey::CPU);
  }

  at::Tensor card(const at::Tensor& t, const at::Tensor* viewed = nullptr) {
    if (!t.defined() || !t.device().is_cpu()) return t;
    auto* mine = t.storage().unsafeGetStorageImpl();
    auto found = back.find(mine);
    if (found == back.end()) {
      auto bytes = t.storage().nbytes();
      auto keep = [](void* kept) { delete static_cast<Storage*>(kept); };
      DataPtr memory(t.storage().mutable_data(), new Storage(t.storage()), keep, HOST);
      Storage storage(Storage::use_byte_size_t(), bytes, on_card(std::move(memory), bytes), &card_allocator, true);
      found = back.emplace(mine, std::move(storage)).first;
    }
    return with(found->second, t, DispatchKey::CUDA, viewed);
  }

  // An `out` tensor may have grown in the operator's hands.
  void grown(const at::Tensor& of_card, const at::Tensor& of_host) {
    auto from = of_host.storage(), to = of_card.storage();
    if (from.nbytes() != to.nbytes() || from.data() != to.data()) {
      auto keep = [](void* kept) { delete static_cast<Storage*>(kept); };
      DataPtr memory(from.mutable_data(), new Storage(from), keep, HOST);
      to.unsafeGetStorageImpl()->set_data_ptr_noswap(on_card(std::move(memory), from.nbytes()));
      to.unsafeGetStorageImpl()->set_nbytes(from.nbytes());
    }
    of_card.unsafeGetTensorImpl()->set_sizes_and_strides(of_host.sizes(), of_host.strides(), of_host.storage_offset());
  }
};

template <typename Visit>
void each_tensor(const IValue& value, Visit visit) {
  if (value.isTensor()) {
    visit(value.toTensor());
  } else if (value.isList()) {
    for (const IValue& entry : value.toListRef()) each_tensor(entry, visit);
  }
}

template <typename Change>
IValue changed(const IValue& value, Change change) {
  if (value.isTensor()) return change(value.toTensor());
  if (value.isTensorList()) {
    c10::List<at::Tensor> out;
    for (const at::Tensor& entry : value.toTensorVector()) out.push_back(change(entry));
    return out;
  }
  if (value.isList() && value.toList().elementType()->kind() == OptionalType::Kind) {
    c10::List<std::optional<at::Tensor>> out;
    for (const IValue& entry : value.toListRef())
      out.push_back(entry.isTensor() ? std::optional<at::Tensor>(change(entry.toTensor())) : std::nullopt);
    return out;
  }
  return value;
}

bool takes_indices(const FunctionSchema& schema) {
  const auto& name = schema.name();
  return name == "aten::index" || name == "aten::_index_put_impl_" || name == "aten::_unsafe_index";
}

// Operators beside the pointwise ones that take a number from a tensor [] of the host.
bool takes_number(const FunctionSchema& schema) {
  static const std::unordered_set<std::string> names{"aten::fill", "aten::fill_", "aten::masked_fill",
                                                     "aten::masked_fill_", "aten::_index_put_impl_",
                                                     "aten::floor_divide", "aten::floor_divide_"};
  return names.count(schema.name()) > 0;
}

void refuse_mixing(const OperatorHandle& op, ArrayRef<IValue> values) {
  const auto& schema = op.schema();
  bool indexes = takes_indices(schema), number = op.hasTag(at::Tag::pointwise) || takes_number(schema);
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].isGenerator()) {
      auto device = values[i].toGenerator().device();
      TORCH_CHECK(device == CARD, "Expected a 'cuda' device type for generator but found '", device, "'");
    }
    each_tensor(values[i], [&](const at::Tensor& t) {
      if (!t.defined() || t.is_cuda() || (indexes && i == 1)) return;
      TORCH_CHECK(!(indexes && i == 0),
                  "indices should be either on cpu or on the same device as the indexed tensor (cpu)");
      TORCH_CHECK(t.dim() == 0 && number,
                  "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (",
                  schema.operator_name(), ", argument ", schema.arguments()[i].name(), " of shape ", t.sizes(), ")");
    });
  }
}

void run(const OperatorHandle& op, torch::jit::Stack* stack, bool may_mix) {
  const auto& schema = op.schema();
  const auto count = schema.arguments().size();
  std::vector<IValue> given(stack->end() - count, stack->end());
  stack->erase(stack->end() - count, stack->end());
  if (!may_mix) refuse_mixing(op, given);

  Call call;
  bool to_card = true;
  std::vector<IValue> sent;
  std::vector<CardGenerator*> drawn;
  for (const IValue& value : given) {
    if (value.isDevice()) {
      to_card = value.toDevice().is_cuda();
      sent.emplace_back(HOST);
    } else {
      sent.push_back(changed(value, [&](const at::Tensor& t) { return call.host(t); }));
    }
    if (value.isGenerator()) drawn.push_back(static_cast<CardGenerator*>(value.toGenerator().unsafeGetGeneratorImpl()));
  }
  for (auto* generator : drawn) generator->be(HOST);
  for (const IValue& value : sent) stack->push_back(value);
  try {
    op.callBoxed(*stack);
  } catch (...) {
    for (auto* generator : drawn) generator->be(CARD);
    throw;
  }
  for (auto* generator : drawn) generator->be(CARD);

  const auto made = schema.returns().size();
  for (size_t i = 0; i < count; ++i) {
    const auto* alias = schema.arguments()[i].alias_info();
    if (alias != nullptr && alias->isWrite() && given[i].isTensor() && given[i].toTensor().is_cuda())
      call.grown(given[i].toTensor(), sent[i].toTensor());
  }
  for (size_t r = 0; r < made; ++r) {
    IValue& value = (*stack)[stack->size() - made + r];
    const auto* alias = schema.returns()[r].alias_info();
    const at::Tensor* viewed = nullptr;
    bool written = false;
    for (size_t i = 0; i < count && alias != nullptr; ++i) {
      const auto* theirs = schema.arguments()[i].alias_info();
      if (theirs == nullptr || theirs->beforeSets() != alias->beforeSets()) continue;
      if ((written = alias->isWrite())) value = given[i];
      if (given[i].isTensor()) viewed = &given[i].toTensor();
    }
    if (!written && to_card) value = changed(value, [&](const at::Tensor& t) { return call.card(t, viewed); });
  }
}

void fallback(const OperatorHandle& op, torch::jit::Stack* stack) { run(op, stack, false); }
void copy(const OperatorHandle& op, torch::jit::Stack* stack) { run(op, stack, true); }
void nothing(const OperatorHandle& op, torch::jit::Stack* stack) {
  stack->erase(stack->end() - op.schema().arguments().size(), stack->end());
}

// ---- the device ---------------------------------------------------------------------------------------------------

struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  int getNumGPUs() const override { return 1; }
  DeviceIndex deviceCount() const override { return 1; }
  DeviceIndex getCurrentDevice() const override { return 0; }
  DeviceIndex current_device() const override { return 0; }
  bool hasPrimaryContext(DeviceIndex) const override { return true; }
  Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  Allocator* getCUDADeviceAllocator() const override { return &card_allocator; }
  bool isPinnedPtr(const void* place) const override {
    std::lock_guard<std::mutex> lock(pins);
    return pinned.count(place) > 0;
  }
  const at::Generator& getDefaultGenerator(DeviceIndex) const override {
    static const auto generator = at::make_generator<CardGenerator>();
    return generator;
  }
  at::Generator getNewGenerator(DeviceIndex) const override { return at::make_generator<CardGenerator>(); }
};
using at::CUDAHooksRegistry;
using at::RegistererCUDAHooksRegistry;
REGISTER_CUDA_HOOKS(CUDAHooks);

struct Guard final : impl::NoOpDeviceGuardImpl<DeviceType::CUDA> {
  static Stream only() { return Stream(Stream::DEFAULT, CARD); }
  Device getDevice() const override { return CARD; }
  Device exchangeDevice(Device) const override { return CARD; }
  DeviceIndex deviceCount() const noexcept override { return 1; }
  Stream getStream(Device) const noexcept override { return only(); }
  Stream getDefaultStream(Device) const override { return only(); }
  Stream exchangeStream(Stream) const noexcept override { return only(); }
  void record(void**, const Stream&, const DeviceIndex, const EventFlag) const override {}
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  bool queryStream(const Stream&) const override { return true; }
  void destroyEvent(void*, const DeviceIndex) const noexcept override {}
  void synchronizeStream(const Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void recordDataPtrOnStream(const DataPtr&, const Stream&) const override {}
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("copy_", torch::CppFunction::makeFromBoxedFunction<&copy>());
  for (const char* name : {"convolution", "convolution_backward"})  // would look for a kernel by the device's type
    m.impl(name, torch::CppFunction::makeFromBoxedFunction<&fallback>());
  m.impl("record_stream", torch::CppFunction::makeFromBoxedFunction<&nothing>());
}
}  // namespace

extern "C" {
int64_t pretended_bytes_in_use() { return in_use; }
int64_t pretended_bytes_peak() { return peak; }
void pretended_reset_peak() { peak = in_use.load(); }
}
