# Everything a person types. `make help` lists it.

# The Go that everything is built with (go.mod asks for it): the go command takes it
# through the module proxy. Without this line a machine with GOTOOLCHAIN=local would
# refuse, and its own older Go has known vulnerabilities in the standard library.
export GOTOOLCHAIN := go1.27.3
GO       ?= go
BUILD    := build
VERSION  ?= $(shell ./scripts/version)
# The key whose releases a Base takes (docs/updates.md): the public half, which is
# built in. Without one a Base takes no updates.
RELEASE_KEY_FILE ?= $(HOME)/.config/bitbox-base/release.key
RELEASE_KEY      ?= $(shell cat '$(RELEASE_KEY_FILE).pub' 2>/dev/null)
export RELEASE_KEY
# What a package or an image brings of Bitcoin Core (docs/node.md): archives of one release, with
# SHA256SUMS and SHA256SUMS.asc beside them; and whose signatures count.
BITCOIN_CORE         ?=
BITCOIN_CORE_SIGNERS ?= packaging/bitcoin-core
export BITCOIN_CORE BITCOIN_CORE_SIGNERS
LDFLAGS  := -s -w -X github.com/BitBoxSwiss/bitbox-base/internal/version.Software=$(VERSION) \
	$(if $(RELEASE_KEY),-X github.com/BitBoxSwiss/bitbox-base/internal/protocol/release.builtIn=$(RELEASE_KEY))
# No cgo anywhere: the binaries depend on nothing but the kernel.
export CGO_ENABLED ?= 0

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2
GOVULNCHECK := golang.org/x/vuln/cmd/govulncheck@v1.9.0
GOVERSIONINFO := github.com/josephspurrier/goversioninfo/cmd/goversioninfo@v1.7.0
FUZZTIME    ?= 1m
# The state of `make run`, and its node: btcd on regtest, or none.
NODE        ?= btcd
DEV_STATE   ?= .dev/base

.PHONY: help
help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.PHONY: build
build: ## build the programs for this machine, their man pages and completions, into build/
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $(BUILD)/ ./cmd/...
	./scripts/manual $(BUILD) '$(VERSION)'

.PHONY: btcd
btcd: ## build btcd, the node of `make run` and of the tests, from its module
	$(GO) build -C node/btcd -trimpath -ldflags '-s -w' -o $(abspath $(BUILD))/btcd github.com/btcsuite/btcd

.PHONY: run
run: build $(if $(filter none,$(NODE)),,btcd) ## start a whole Base in this terminal, with a node (NODE=none: without)
	@echo
	@echo "A Base starts below. In a second terminal, type:"
	@echo
	@echo "    ./$(BUILD)/bitbox-app pair"
	@echo
	@echo "then accept the number and compare the code here. Ctrl-C ends the Base; its state stays in $(DEV_STATE)."
	@echo
	@NODE=$(NODE) ./scripts/run ./$(BUILD) $(DEV_STATE)

.PHONY: demo
demo: build ## play the whole story by itself: discover, pair, use, revoke
	$(GO) run ./demo

.PHONY: appliance
appliance: as-user build ## boot the whole appliance in a container (Debian 13; asks for root), and show its console
	./scripts/appliance

.PHONY: appliance-demo
appliance-demo: as-user build ## play the appliance's story by itself: pair, open, close, lock down, reboot
	./scripts/appliance demo

.PHONY: as-user
as-user: # sudo hides the caller's Go, and would leave root's files here
	@[ -z "$$SUDO_USER" ] || { echo "Type it without sudo; it asks for root for the steps that need it." >&2; exit 1; }

.PHONY: check
check: ## quick checks for everyday work: vet, and the tests that need neither root nor minutes
	$(GO) vet ./...
	./scripts/test check

.PHONY: test
test: ## run every test; as root also those against the real servers
	./scripts/setup-tests
	$(GO) build ./...
	./scripts/test

.PHONY: screenshots
screenshots: ## make pictures of the window's pages, at three widths, light and dark, in build/screenshots
	./scripts/setup-tests
	$(GO) test -count=1 -timeout 20m -run 'TestEachPageFits|TestANewcomer|TestAWalletIs' ./test/window -args -screenshots $(abspath $(BUILD))/screenshots

.PHONY: bench
bench: ## measure, beside a rival in the same run; writes docs/performance.md
	./scripts/setup-tests
	$(GO) run ./bench -docs

.PHONY: fuzz
fuzz: ## run each fuzz target for FUZZTIME (1m)
	./scripts/fuzz $(FUZZTIME)

.PHONY: lint
lint: ## check format, vet, staticcheck, known vulnerabilities, shell scripts, modules, generated code
	./scripts/lint $(STATICCHECK) $(GOVULNCHECK)

.PHONY: sandbox
sandbox: ## print how exposed each unit of the appliance is, and fail above its limit (root)
	./scripts/setup-tests
	$(GO) test -v -count=1 -run TestEachServiceIsSandboxed ./test/stage

.PHONY: cross
cross: ## build for every supported platform
	./scripts/cross $(BUILD) '$(VERSION)' '$(LDFLAGS)' $(GOVERSIONINFO)

.PHONY: package
package: ## make the Debian packages of Base and App (amd64, arm64) in build/, the same bytes each time
	./scripts/package $(VERSION) amd64 $(BUILD)
	./scripts/package $(VERSION) arm64 $(BUILD)
	./scripts/package $(VERSION) amd64 $(BUILD) bitbox-app
	./scripts/package $(VERSION) arm64 $(BUILD) bitbox-app

.PHONY: release-key
release-key: ## make the key that signs releases (once; it is stored in RELEASE_KEY_FILE)
	$(GO) run ./packaging/release key '$(RELEASE_KEY_FILE)'

.PHONY: release
release: package ## make the packages, and the signed release files of them and of the images in build/, which an App sends
	for architecture in amd64 arm64; do \
		name=$(BUILD)/bitbox-base_$(VERSION)_$$architecture && \
		$(GO) run ./packaging/release sign '$(RELEASE_KEY_FILE)' $$name.deb $$name.release || exit 1; \
		[ ! -e $(BUILD)/image-$$architecture/image.json ] || \
		$(GO) run ./packaging/release sign-image '$(RELEASE_KEY_FILE)' $(BUILD)/image-$$architecture $$name.image.release || exit 1; \
	done

# NOTES has a line for each version: what it changes (packaging/release).
.PHONY: feed
feed: ## make the signed list of the releases in build/ (NOTES=FILE)
	$(GO) run ./packaging/release feed '$(RELEASE_KEY_FILE)' '$(NOTES)' $(BUILD)/feed $(BUILD)/*.release

# Parameters: BITCOIN_CORE=bitcoin-….tar.gz (docs/node.md). PROVISION=FILE, or SSH_KEY=FILE.pub, HOSTNAME=name, PAIR=1, DISPLAY=none, SSH_LEASE_FROM_FIRST_BOOT=1h
# (docs/image.md). HOSTNAME and DISPLAY of the environment are the building machine's own.
ARCH ?= amd64
# The builder's Secure Boot keys. MICROSOFT=1 has machines accept what Microsoft has signed as well.
SECURE_BOOT_KEYS ?= $(HOME)/.config/bitbox-base/secure-boot
image: export IMAGE_HOSTNAME := $(if $(filter command,$(firstword $(origin HOSTNAME))),$(HOSTNAME))
image: export IMAGE_DISPLAY := $(if $(filter command,$(firstword $(origin DISPLAY))),$(DISPLAY))
.PHONY: image
image: as-user build ## make a bootable image in build/image-ARCH (Debian; asks for root; ARCH=arm64 for another machine)
	./scripts/setup-image $(ARCH)
	package=$$(./scripts/package $(VERSION) $(ARCH) $(BUILD)) && $(GO) run ./image build --arch $(ARCH) --package "$$package" \
		--app ./$(BUILD)/bitbox-app --keys '$(SECURE_BOOT_KEYS)' --out $(BUILD)/image-$(ARCH)

.PHONY: secure-boot-keys
secure-boot-keys: ## make the keys with which your machines decide what they start (once; kept in SECURE_BOOT_KEYS)
	$(GO) run ./image keys '$(SECURE_BOOT_KEYS)'

.PHONY: test-update
test-update: ## update a Base in every way that can fail (root; some minutes)
	./scripts/setup-tests
	$(GO) test -count=1 -v -timeout 30m -tags updates ./test/update

.PHONY: test-image
test-image: ## boot the image in QEMU, attack it from outside, look at it from inside (root; hours)
	./scripts/setup-image
	./scripts/setup-image test
	package=$$(./scripts/package $(VERSION) amd64 $(BUILD)) && BITBOX_BASE_PACKAGE=$$(realpath "$$package") \
		$(GO) test -count=1 -v -timeout 300m -tags image ./test/image

.PHONY: generate
generate: ## regenerate the protobuf code (needs protoc: apt-get install protobuf-compiler libprotobuf-dev)
	./scripts/generate api

.PHONY: dependencies
dependencies: ## rewrite the list of packages that each binary links
	$(GO) test ./test/repository -run TestEachBinaryLinksTheListedPackagesOnly -update

.PHONY: clean
clean: ## remove what was built (not the state of `make run`)
	rm -rf $(BUILD)
