package api

import (
	"testing"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	basev1 "github.com/BitBoxSwiss/bitbox-base/api/base/v1"
)

// methodsOfAPI returns each method that the files of the API describe, by its name.
func methodsOfAPI() map[string]protoreflect.MethodDescriptor {
	methods := map[string]protoreflect.MethodDescriptor{}
	protoregistry.GlobalFiles.RangeFilesByPackage(basev1.File_base_v1_base_proto.Package(), func(file protoreflect.FileDescriptor) bool {
		for i := range file.Services().Len() {
			service := file.Services().Get(i)
			for j := range service.Methods().Len() {
				method := service.Methods().Get(j)
				methods[string(method.FullName())] = method
			}
		}
		return true
	})
	return methods
}

func TestEachMethodHasARowInTheTableAndEachRowAMethod(t *testing.T) {
	described := methodsOfAPI()
	if len(described) == 0 {
		t.Fatal("the API has no methods: this test looks in the wrong place")
	}
	for name := range described {
		if _, ok := methods[name]; !ok {
			t.Errorf("%s has no row", name)
		}
	}
	for name, m := range methods {
		method, ok := described[name]
		switch {
		case !ok:
			t.Errorf("there is a row for %s, which the API does not have", name)
			continue
		case m.least < viewer || m.least > owner:
			t.Errorf("%s may be called by role %v, which no App has", name, m.least)
		case m.deadline == 0 && !method.IsStreamingServer():
			t.Errorf("%s has no deadline, though it is no stream", name)
		case m.holds == follows && !method.IsStreamingServer():
			t.Errorf("%s follows, though it is no stream", name)
		}
	}
}
